"""The options that many commands share, written once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How results are written to standard output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[
    Format, typer.Option("--output", "-o", envvar="FLUX_OUTPUT", help="How the result is written to standard output.")
]
Agency = Annotated[str | None, typer.Option("--agency", "-a", envvar="FLUX_AGENCY", help="The agency it is about.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait at most (exit status 7 then).")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="A file that holds the token. Default: FLUX_TOKEN_FILE, else a development key."),
]
ProofKey = Annotated[
    Path | None,
    typer.Option(
        "--proof-key",
        envvar="FLUX_PROOF_KEY_FILE",
        help="The private key (PEM, P-256 or Ed25519) that the token names in cnf.jkt; each record gets a proof by it.",
    ),
]
Role = Annotated[str, typer.Option("--role", help="Role in a token that is minted with a development key.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its request's.")]
