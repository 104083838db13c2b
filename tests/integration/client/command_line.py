"""The command `flux-etl` as a person types it, in a folder where `.flux/dev.env` alone says where Flux is."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from flux_client.cli.app import run
from flux_client.cli.exits import Exit
from flux_devkit.asking import a_request, texts
from flux_devkit.flux import Flux
from flux_devkit.installation import Installation

AGENCY = "nasa"


@dataclass(frozen=True)
class Said:
    """What a call of the command line said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return standard output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Types commands in a folder below which nothing but `.flux/dev.env` says where Flux is."""

    flux: Flux
    folder: Path

    def __call__(self, *arguments: str, agency: str = AGENCY, **more: str) -> Said:
        """Run `flux-etl` in this process, as if in a fresh one: nothing of Flux in its environment but what is given."""
        kept, handlers = dict(os.environ), list(logging.root.handlers)
        out, err = io.StringIO(), io.StringIO()
        os.environ.clear()
        os.environ.update(self.environment(agency) | more)
        try:
            with contextlib.chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
                status = run(arguments)
        finally:
            os.environ.clear()
            os.environ.update(kept)
            logging.captureWarnings(False)
            logging.root.handlers[:] = handlers
        return Said(status, out.getvalue(), err.getvalue())

    def environment(self, agency: str = AGENCY) -> dict[str, str]:
        """Return an environment in which nothing says where Flux is."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}
        return plain | {"FLUX_AGENCY": agency, "FLUX_OUTPUT": "json"}

    def request(self, request_id: str, files: int = 6, **more: Any) -> Path:
        """Write a request for a folder with so many texts; return its path."""
        source = self.flux.folder("archives", AGENCY, request_id)
        texts(source, files)
        path = self.folder / f"{request_id}.json"
        path.write_text(json.dumps(a_request(self.flux, AGENCY, request_id, source, **more)))
        return path

    def done(self, request_id: str = "done") -> dict[str, Any]:
        """Return the story of a run that has completed; submitted by the first who asks."""
        said = self("submit", "-f", str(self.request(request_id, partitioning={"objects_max": 2})), "--wait")
        assert said.status == Exit.OK, said.err
        return dict(said.json)


def dev_env(installation: Installation) -> str:
    """Return the lines that `make up` writes for tools."""
    variables = {
        "FLUX_KAFKA_BOOTSTRAP": installation.servers.kafka_bootstrap,
        "FLUX_TOPIC_PREFIX": installation.topic_prefix,
        "FLUX_KEYS_DIR": str(installation.keys),
        "FLUX_AGENCIES_FILE": str(installation.keys / "agencies.yaml"),
        "FLUX_READER_DSN": installation.role_dsn("flux_reader"),
        "FLUX_READER_PASSWORD_FILE": str(installation.password_file("flux_reader")),
        "FLUX_AUDIT_VERIFIER_KEY": " ".join(map(installation.verifier_key, (AGENCY, "national-archives"))),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def ledger(flux: Flux, service: str) -> dict[str, str]:
    """Return the variables by which an operator reads a service's ledger."""
    role, name = f"flux_{service}", service.upper()
    return {
        f"FLUX_{name}_DSN": flux.installation.role_dsn(role),
        f"FLUX_{name}_PASSWORD_FILE": str(flux.installation.password_file(role)),
    }


def as_owner(flux: Flux, sql: str) -> None:
    """Do what only the database's owner could: what verification is for."""

    async def run() -> None:
        connection = await asyncpg.connect(flux.installation.admin_dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())


def position(said: dict[str, Any]) -> list[str]:
    """Return a position as arguments."""
    return [said["topic"], str(said["kafka_partition"]), str(said["offset"])]
