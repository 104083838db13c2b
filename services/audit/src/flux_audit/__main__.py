"""`python -m flux_audit serve | check-settings | verifier-key AGENCY`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flux_audit.adapters.signer import log_verifier_key
from flux_audit.settings import AuditSettings, KeySettings
from flux_audit.wiring import build
from flux_common.kernel.errors import FluxError
from flux_common.runtime.cli import Program, main
from flux_common.runtime.service import ExitCode
from flux_common.settings import load

PROGRAM = Program(
    name="audit",
    about="Flux audit: seals facts into one Merkle log per agency, signs its heads, sends receipts."
    " A further command, verifier-key AGENCY, prints what a verifier of that agency's log is given.",
    settings=AuditSettings,
    build=build,
)


def verifier_key(argv: Sequence[str]) -> int:
    """Print the verifier key of an agency's log: public, and all that `flux_client.verifier` needs to be told."""
    parser = argparse.ArgumentParser(prog="flux-audit verifier-key", description=verifier_key.__doc__)
    parser.add_argument("agency")
    agency = parser.parse_args(argv).agency
    try:
        settings = load(KeySettings).audit
        key = log_verifier_key(settings.key_file, settings.origin_prefix, agency)
    except FluxError as error:
        sys.stderr.write(f"{error.message}\nSee: python -m flux_audit check-settings\n")
        return ExitCode.SETTINGS_INVALID
    sys.stdout.write(key + "\n")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(verifier_key(sys.argv[2:]) if sys.argv[1:2] == ["verifier-key"] else main(PROGRAM))
