"""What `make up` does once both servers answer: an installation on them, and the variables by which tools find it.

A step gets the home and the servers and returns the variables it adds to `dev.env` (a DSN, a key file, a topic prefix).
Steps run in order, in the background process, before the stack is reported up; a step that raises DevkitError fails the
whole `up` with its message, and what was started is stopped. A step must be repeatable: the servers' data survive `down`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from flux_common.kernel.errors import FluxError
from flux_devkit.errors import DevkitError
from flux_devkit.home import Home
from flux_devkit.installation import Installation
from flux_devkit.postgres import ensure_database
from flux_devkit.servers import Servers

Step = Callable[[Home, Servers], Mapping[str, str]]
DATABASE = "flux"


def development_installation(home: Home, servers: Servers) -> Installation:
    """The installation of `make up`: agencies' files lie below `.flux/files`."""
    return Installation(servers, home.keys, home.root / "files", DATABASE)


def services_wanted() -> bool:
    """Whether `up` starts the four services too; FLUX_UP=servers says no."""
    return os.environ.get("FLUX_UP", "") != "servers"


def install(home: Home, servers: Servers) -> Mapping[str, str]:
    """Make roles, schema, topics, agencies and keys, and say where they are."""
    ensure_database(servers.postgres_dsn, DATABASE)
    installation = development_installation(home, servers)
    try:
        installation.prepare_now()
    except FluxError as problem:
        raise DevkitError(f"Flux could not be installed on the servers: {problem}") from problem
    for agency in installation.agencies:
        for kind in ("archives", "datasets"):
            (installation.folder / kind / agency.agency_id).mkdir(parents=True, exist_ok=True)
    logins = {}
    for service in ("ingest", "checkpoint", "audit"):
        role = f"flux_{service}"
        logins[f"FLUX_{service.upper()}_DSN"] = installation.role_dsn(role)
        logins[f"FLUX_{service.upper()}_PASSWORD_FILE"] = str(installation.password_file(role))
    return logins | {
        "FLUX_AGENCIES_FILE": str(home.keys / "agencies.yaml"),
        "FLUX_FILES_DIR": str(installation.folder),
        "FLUX_READER_DSN": installation.role_dsn("flux_reader"),
        "FLUX_READER_PASSWORD_FILE": str(installation.password_file("flux_reader")),
        "FLUX_AUDIT_VERIFIER_KEY": " ".join(installation.verifier_key(a.agency_id) for a in installation.agencies),
    }


STEPS: tuple[Step, ...] = (install,)


def provision(home: Home, servers: Servers, steps: tuple[Step, ...] | None = None) -> dict[str, str]:
    """Every variable of `dev.env`: the servers' own, and each step's."""
    variables = {
        "FLUX_HOME": str(home.root),
        "FLUX_KEYS_DIR": str(home.keys),
        "FLUX_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "FLUX_POSTGRES_DSN": servers.postgres_dsn,
    }
    for step in STEPS if steps is None else steps:
        variables.update(step(home, servers))
    return variables
