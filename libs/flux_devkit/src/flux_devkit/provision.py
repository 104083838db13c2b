"""What `make up` does once both servers answer: the hook for roles, migrations, topics and keys.

A step gets the home and the servers and returns the variables it adds to `dev.env` (a DSN per role, a key file, a
topic prefix). Steps run in order, in the background process, before the stack is reported up; a step that raises
DevkitError fails the whole `up` with its message, and what was started is stopped. A step must be repeatable: the
servers' data survive `down`. To add one, write it where its matter belongs and name it in `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flux_devkit.home import Home
from flux_devkit.servers import Servers

Step = Callable[[Home, Servers], Mapping[str, str]]

STEPS: tuple[Step, ...] = ()


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
