"""Where a command learns what it works with: environment variables, and `.flux/dev.env` of a development installation.

The environment goes first. `dev.env` is looked for from the working directory upward (or named by FLUX_DEV_ENV; empty:
none) and fills in what is not set, but only as a whole: where the environment names other brokers than the file does,
the file is about another installation and nothing of it is used.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from flux_client.cli.exits import Ended, Exit

if TYPE_CHECKING:
    from flux_client.keys import SigningKey
    from flux_client.tokens import IssuerKey
    from flux_client.verifier import Trust
    from flux_common.settings import KafkaSettings, PostgresSettings, SectionSet

    Needs = TypeVar("Needs", bound=SectionSet)

DEV_ENV: Final = Path(".flux") / "dev.env"
log_level: Literal["info", "error"] = "error"  # of what the client logs to standard error; `--verbose` raises it
UP_HINT: Final = "`make up` starts a development installation and writes .flux/dev.env, or set the variable"


def adopt_dev_env(environ: MutableMapping[str, str], start: Path) -> Path | None:
    """Fill in `environ` from the `dev.env` that belongs to it; return the file that was used."""
    path = _dev_env(environ, start)
    if path is None:
        return None
    variables = read_dev_env(path)
    brokers = environ.get("FLUX_KAFKA_BOOTSTRAP")
    if brokers and brokers != variables.get("FLUX_KAFKA_BOOTSTRAP"):
        return None
    for name, value in variables.items():
        environ.setdefault(name, value)
    return path


def read_dev_env(path: Path) -> dict[str, str]:
    """Return the variables of a file of KEY=VALUE lines that a shell could source."""
    words = shlex.split(path.read_text("utf-8"), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def _dev_env(environ: Mapping[str, str], start: Path) -> Path | None:
    named = environ.get("FLUX_DEV_ENV")
    if named is not None:
        return _named(named) if named else None
    return next((folder / DEV_ENV for folder in (start, *start.parents) if (folder / DEV_ENV).is_file()), None)


def _named(path: str) -> Path:
    if not Path(path).is_file():
        raise Ended(Exit.USAGE, f"FLUX_DEV_ENV names {path}, which is no file", "unset it, or name the file")
    return Path(path)


def load_settings(needs: type[Needs]) -> Needs:
    """Return the settings that a command needs; every fault at once. From here on, logs go to standard error."""
    from flux_common.kernel.errors import FluxError
    from flux_common.observability.logging import configure_logging
    from flux_common.settings import LogSettings, load

    configure_logging("flux-etl", LogSettings(level=log_level, format="console"))
    try:
        return load(needs)
    except FluxError as error:
        raise Ended(Exit.USAGE, error.message, UP_HINT) from None


def kafka_settings() -> KafkaSettings:
    """Return how to reach Kafka."""
    from flux_client.settings import KafkaNeeds

    return load_settings(KafkaNeeds).kafka


def reader_settings() -> PostgresSettings:
    """Return how to reach PostgreSQL as flux_reader."""
    from flux_client.settings import ReaderNeeds

    return load_settings(ReaderNeeds).reader


def reader_settings_if_any() -> PostgresSettings | None:
    """Return the same, or None where the environment names no reader."""
    return reader_settings() if os.environ.get("FLUX_READER_DSN") else None


def ledger_settings() -> dict[str, PostgresSettings]:
    """Return how to reach the services' ledgers, as far as the environment names them (FLUX_INGEST_DSN, …)."""
    from flux_client.settings import LEDGERS

    return {name: section() for name, section in LEDGERS.items() if os.environ.get(section.env_name("dsn"))}


def agency_of(given: str | None) -> str:
    """Return the agency that the command is for."""
    import re

    from flux_common.contracts.types import AGENCY_PATTERN

    if not given:
        raise Ended(Exit.USAGE, "no agency is named", "use --agency NAME, or set FLUX_AGENCY")
    if not re.fullmatch(AGENCY_PATTERN, given):
        raise Ended(Exit.USAGE, f"{given!r} is no agency id", "lower-case letters, digits and hyphens, 2 to 63")
    return given


def agencies_file(given: Path | None) -> Path:
    """Return the agency registry's path."""
    path = given or (Path(named) if (named := os.environ.get("FLUX_AGENCIES_FILE")) else None)
    if path is None:
        raise Ended(Exit.USAGE, "no agency registry is named", f"name the file, or FLUX_AGENCIES_FILE: {UP_HINT}")
    if not path.is_file():
        raise Ended(Exit.NOT_FOUND, f"there is no file {path}", "correct the path")
    return path


def token_from(file: Path | None) -> str | None:
    """Return the token in `file`, or in the file that FLUX_TOKEN_FILE names; None where neither is there."""
    path = file or (Path(named) if (named := os.environ.get("FLUX_TOKEN_FILE")) else None)
    if path is None:
        return None
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise Ended(Exit.NOT_FOUND, f"{path}: {error.strerror}", "name a file that holds a token") from None


def issuer_key(agency: str, role: str, sub: str | None = None, life_s: int | None = None) -> IssuerKey:
    """Return the development key of an agency's issuer."""
    from flux_client.keys import TOKEN_LIFE_S, load_key, private_key_path
    from flux_client.tokens import IssuerKey

    folder = os.environ.get("FLUX_KEYS_DIR")
    if not folder:
        hint = "use --token-file with a token of your identity provider, or set FLUX_KEYS_DIR for development keys"
        raise Ended(Exit.USAGE, "there is neither a token nor a development key", hint)
    path = private_key_path(Path(folder), agency)
    try:
        key = load_key(path)
    except OSError:
        hint = "development keys exist for the agencies of the development registry alone; see `agencies check`"
        raise Ended(Exit.NOT_FOUND, f"there is no development key {path}", hint) from None
    except ValueError as error:
        raise Ended(Exit.USAGE, str(error), "put a P-256 or Ed25519 key there") from None
    return IssuerKey(key, role=role, sub=sub or "flux-etl", life_s=life_s or TOKEN_LIFE_S)


def proof_key(path: Path) -> SigningKey:
    """Return the key with which proofs are made."""
    from flux_client.keys import load_key

    try:
        return load_key(path)
    except OSError as error:
        hint = "`flux-etl token proof-key FILE` makes one; the token must name it in cnf.jkt"
        raise Ended(Exit.NOT_FOUND, f"{path}: {error.strerror}", hint) from None
    except (TypeError, ValueError):
        raise Ended(
            Exit.USAGE, f"{path} holds no plain P-256 or Ed25519 key", "put a PEM without a password there"
        ) from None


def trust_in(agency: str, keys: list[str], known_heads: list[Path]) -> Trust:
    """Return what the caller believes: verifier keys given or named by FLUX_AUDIT_VERIFIER_KEY, and kept heads."""
    from flux_client.verifier import Trust

    given = keys or os.environ.get("FLUX_AUDIT_VERIFIER_KEY", "").replace(",", " ").split()
    return Trust(given, agency, known_heads=[path.read_bytes() for path in known_heads])
