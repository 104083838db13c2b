"""Where the development kit keeps things: `.flux` beside the checkout's own files, or `FLUX_HOME`.

    kafka-<version>/   the broker's jars, its class archive and a formatted log folder to copy (jars.py)
    data/              Kafka's and PostgreSQL's data of `make up`; survives `make down`
    logs/              one file per server and service
    keys/              development keys (0700)
    samples/           sample archives
    dev.env            what runs, as KEY=VALUE lines that a shell can source: written by `make up`, gone after `down`
    stack.json         process ids of what `make up` started
    stack.lock         locked exactly as long as any of them runs

`dev.env` is written whole or not at all (rename). Who adds lines to it does so through `Home.add_to_dev_env`.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flux_devkit.errors import DevkitError

Say = Callable[[str], None]  # where progress is told, one line at a time
POM = Path("deploy/dev/kafka/pom.xml")


@dataclass(frozen=True)
class Home:
    """The folder of state (`.flux`) and the checkout that it belongs to."""

    root: Path
    checkout: Path

    @property
    def logs(self) -> Path:
        """One log file per server and service."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """The servers' data."""
        return self.root / "data"

    @property
    def keys(self) -> Path:
        """Development keys; the folder is private."""
        return self.root / "keys"

    @property
    def dev_env(self) -> Path:
        """What runs, for a shell and for tools."""
        return self.root / "dev.env"

    @property
    def pom(self) -> Path:
        """Names the Kafka version and its jars."""
        return self.checkout / POM

    def read_dev_env(self) -> dict[str, str]:
        """The variables of `dev.env`; empty if nothing is up."""
        if not self.dev_env.exists():
            return {}
        words = shlex.split(self.dev_env.read_text(), comments=True)
        return dict(word.split("=", 1) for word in words if "=" in word)

    def write_dev_env(self, variables: Mapping[str, str]) -> None:
        """Replace `dev.env`; private, since DSNs hold passwords."""
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        write_private(self.dev_env, text)

    def add_to_dev_env(self, variables: Mapping[str, str]) -> None:
        """Add or replace variables of `dev.env`: the hook for whoever creates roles, keys and topics."""
        self.write_dev_env({**self.read_dev_env(), **variables})


def quiet(line: str) -> None:
    """Tell nobody."""


def locate(environ: Mapping[str, str] | None = None) -> Home:
    """The home of this checkout, made if absent. Raises DevkitError outside a checkout."""
    environ = os.environ if environ is None else environ
    checkout = find_checkout()
    root = Path(environ.get("FLUX_HOME") or checkout / ".flux").resolve()
    home = Home(root, checkout)
    for folder in (home.logs, home.data):
        folder.mkdir(parents=True, exist_ok=True)
    home.keys.mkdir(mode=0o700, exist_ok=True)
    return home


def find_checkout() -> Path:
    """The checkout that this module lies in, or else the one around the working directory."""
    here = Path(__file__).resolve()
    for folder in (*here.parents, Path.cwd(), *Path.cwd().parents):
        if (folder / POM).is_file():
            return folder
    raise DevkitError(f"no checkout of Flux found (no {POM} above {here} or {Path.cwd()}); run inside the checkout")


def corpora() -> Path:
    """Where the public test data lie, if they do: `FLUX_CORPORA`, or `shared/data` beside the checkout."""
    return Path(os.environ.get("FLUX_CORPORA") or find_checkout().parent / "shared/data")


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner only, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def try_lock(path: Path) -> int | None:
    """Lock a file; its descriptor, which holds the lock until every copy of it is closed, or None if it is held."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def wait_for_lock(path: Path) -> int:
    """Lock a file, however long it takes (Ctrl-C ends the wait)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
