"""The four services of Flux as child processes: for the demo, the end-to-end tests and chaos.

Theory. A service is run as it is in production, `python -m <module> serve`, with an environment of its own: this
process's, less every `FLUX_*` variable (a sourced `dev.env` must not leak into a test), plus what is given, plus
`FLUX_OPS_PORT`, the port where the service answers `/startupz`, `/readyz`, `/livez` and `/metrics`. Ready means that
`/readyz` answers 200. A stop is SIGTERM and the service's grace; nothing of it outlives this process (supervise.py).
A service that is started again keeps its port.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flux_devkit import supervise
from flux_devkit.errors import DevkitError, StartFailed
from flux_devkit.ports import free_port


@dataclass(frozen=True)
class ServiceOptions:
    """What to run: `python -m module *arguments`, with `env` added to a clean environment."""

    name: str
    module: str
    env: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ("serve",)
    grace_seconds: float = 30.0
    start_timeout_seconds: float = 60.0


def answer(line: http.client.HTTPConnection, path: str) -> tuple[int | None, bytes]:
    """Ask once and hang up: the HTTP status and the body; None and nothing without an answer in time."""
    try:
        line.request("GET", path)
        response = line.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        line.close()


class Service:
    """One service. `start` it, `stop`, `kill`, `pause` and `resume` it as often as you like."""

    def __init__(self, options: ServiceOptions, logs: Path) -> None:
        self.options = options
        self.log = logs / f"{options.name}.log"
        self.ops_port = free_port()
        self._process: supervise.Supervised | None = None

    @property
    def process(self) -> supervise.Supervised:
        """The running process. Raises DevkitError if it was not started."""
        if self._process is None:
            raise DevkitError(f"service {self.options.name} is not running")
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process runs (it need not be ready)."""
        return self._process is not None and self._process.alive

    def start(self) -> Service:
        """Start and wait until it is ready. Raises StartFailed with the log's last lines."""
        self.begin()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def begin(self) -> None:
        """Start and return at once."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}
        env = {**inherited, **self.options.env, "FLUX_OPS_PORT": str(self.ops_port)}
        command = [sys.executable, "-m", self.options.module, *self.options.arguments]
        launch = supervise.Launch(command, self.log, env=env, grace_seconds=self.options.grace_seconds)
        self._process = supervise.start(launch)

    def wait_ready(self) -> None:
        """Wait until `/readyz` answers 200. Raises StartFailed with the log's last lines."""
        name, limit = self.options.name, self.options.start_timeout_seconds
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if not self.process.alive:
                raise StartFailed(f"{name} ended while it was starting. {self.log} ends:\n{supervise.tail(self.log)}")
            if self.ready():
                return
            time.sleep(0.05)
        raise StartFailed(f"{name} was not ready within {limit:.0f} s. {self.log} ends:\n{supervise.tail(self.log)}")

    def ready(self) -> bool:
        """Whether `/readyz` answers 200 now."""
        return self.probe("/readyz") == 200

    def line(self, timeout_seconds: float = 2.0) -> http.client.HTTPConnection:
        """A connection to the operations port; opened by its first use, or by `connect` before the moment to ask."""
        return http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=timeout_seconds)

    def probe(self, path: str, timeout_seconds: float = 2.0) -> int | None:
        """The HTTP status of a path on the operations port; None without an answer in time."""
        return answer(self.line(timeout_seconds), path)[0]

    def why(self, path: str, timeout_seconds: float = 2.0) -> tuple[int | None, dict[str, str]]:
        """A probe's status, and its reasons by what is missing; None and none without an answer in time."""
        status, body = answer(self.line(timeout_seconds), path)
        reasons: dict[str, str] = json.loads(body)["why"] if status is not None else {}
        return status, reasons

    def url(self, path: str) -> str:
        """An address on the operations port."""
        return f"http://127.0.0.1:{self.ops_port}{path}"

    def request_stop(self) -> None:
        """Have SIGTERM sent and return at once; `stop` waits."""
        if self._process is not None:
            self._process.request_stop()

    def stop(self) -> int | None:
        """SIGTERM, grace, SIGKILL. The exit status (128 + n after signal n); None if it was not running."""
        if self._process is None:
            return None
        status = self._process.stop()
        self._process = None
        return status

    def kill(self) -> None:
        """SIGKILL, with everything the service had started."""
        self.process.kill()
        self._process = None

    def restart(self) -> None:
        """Stop if it runs, and start again on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP the service and everything it started."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.process.resume()


class Services:
    """Several services, begun together and stopped together; a context manager."""

    def __init__(self, options: Sequence[ServiceOptions], logs: Path) -> None:
        self._services = {each.name: Service(each, logs) for each in options}

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services.values())

    def start(self) -> Services:
        """Begin all, then wait for all; none is left running if one is not ready. Raises StartFailed."""
        try:
            for service in self:
                service.begin()
            for service in self:
                service.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> dict[str, int | None]:
        """Stop all at the same time; each one's exit status by name, None for one that was not running."""
        for service in self:
            service.request_stop()
        return {service.options.name: service.stop() for service in self}

    def __enter__(self) -> Services:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
