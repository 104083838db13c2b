"""The frame of a service: one process, one event loop, one way to stop.

AsgiFastStream is the application, uvicorn serves its operations port, and `Process` runs the service inside the
lifespan. The port is open from the first moment, so that probes can say what the start-up waits for. Signals are ours
and not uvicorn's, which would close the port before the loops have drained and end with 143. Order of a stop:
draining (`/readyz` is 503 at once) → `stopping` set → loops get `drain_grace_ms` → `build` closes → port closes → exit.

A loop that raises, or returns although nothing stopped it, ends the process: a service never lives on with a part
of itself missing. Kafka redelivers and PostgreSQL rolls back, so ending is always safe.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Generic, TypeVar

import uvicorn
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker

from flux_common.kernel.clock import Clock, SystemClock
from flux_common.kernel.signals import pause
from flux_common.observability import metrics
from flux_common.observability.logging import adopt_library_loggers, configure_logging, get_logger
from flux_common.observability.tracing import configure_tracing
from flux_common.runtime.health import ASSEMBLED, EVENT_LOOP, Health
from flux_common.runtime.retry import Backoff
from flux_common.runtime.routes import ops_routes
from flux_common.runtime.waiting import Found, Probe, wait_for
from flux_common.settings import OpsSettings, ServiceSettings, warnings_of

S = TypeVar("S", bound=ServiceSettings)

Jobs = Mapping[str, Coroutine[Any, Any, None]]
TICK_S: Final = 0.5
CANCEL_GRACE_S: Final = 5.0

log = get_logger(__name__)


class ExitCode(IntEnum):
    """What a process's end means; documented in the README."""

    OK = 0
    FAILED = 1
    SETTINGS_INVALID = 2
    CUT_SHORT = 3  # told to stop, but loops had to be cancelled after the drain grace


@dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """What `build` gets: the settings, and the handles by which loops take part in the process's life.

    Loops run until `stopping` is set, and tell `health` what holds and that they live.
    """

    name: str
    settings: S
    health: Health
    clock: Clock
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    broker: KafkaBroker | None = None

    async def pause(self, seconds: float) -> bool:
        """Wait `seconds`, or less if the process stops meanwhile; return whether to go on."""
        return await pause(self.stopping, seconds)

    async def wait_for(self, dependency: str, probe: Probe[Found]) -> Found:
        """Try `probe` until it succeeds, as `waiting.wait_for`, with the pauses of the settings."""
        pauses = Backoff(max_s=self.settings.ops.wait_backoff_max_ms / 1000)
        return await wait_for(self.health, dependency, probe, pauses)


Build = Callable[[Service[S]], AbstractAsyncContextManager[Jobs]]


def serve(name: str, settings: S, build: Build[S], broker: KafkaBroker | None = None) -> ExitCode:
    """Run the service `name` until SIGTERM, SIGINT or a fault, and return the exit code.

    `build` opens what the loops need, may wait for it (`runtime.wait_for`), and yields the loops by name. `broker` is
    the FastStream broker of low-rate subscribers and publishers; it is started after `build` and stopped before it
    closes.
    """
    configure_logging(name, settings.log)
    for line in warnings_of(settings):
        log.warning("doubtful in production", setting=line)
    close_tracing = configure_tracing(name, _version(name), settings.telemetry)
    metrics.build_info.info({"service": name, "version": _version(name)})
    try:
        return asyncio.run(_serve(name, settings, build, broker))
    finally:
        close_tracing()


async def _serve(name: str, settings: S, build: Build[S], broker: KafkaBroker | None) -> ExitCode:
    clock = SystemClock()
    health = Health(name, clock, settings.ops.loop_stall_ms / 1000)
    process = Process(Service(name, settings, health, clock, broker=broker), build)
    try:
        listener = _listen(settings.ops)
    except OSError as error:
        log.critical("the operations port cannot be opened; set FLUX_OPS_PORT to a free one", exc_info=error)
        return ExitCode.FAILED
    log.info("operations port open", host=settings.ops.host, port=listener.getsockname()[1])
    process.listen_to_signals()
    await process.server.serve(sockets=[listener])
    log.info("ended", exit_code=int(process.exit_code))
    return process.exit_code


class Frame(AsgiFastStream):
    """AsgiFastStream whose broker is started by the process, after the dependencies are there.

    As FastStream ships it, a broker that cannot connect ends the lifespan while uvicorn serves on.
    """

    def __init__(self, process: Process[Any], *brokers: KafkaBroker, **options: Any) -> None:
        super().__init__(*brokers, **options)
        self._process = process

    async def _start_broker(self) -> None:
        """Start nothing here: `Process._work` does."""

    def exit(self) -> None:
        """Stop the process in order."""
        self._process.stop("the application asked to exit")


class OpsServer(uvicorn.Server):
    """uvicorn, without its signal handlers: signals stop the process, and the process stops the server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Process(Generic[S]):
    """One run of a service: opens, watches its loops, drains, closes."""

    def __init__(self, service: Service[S], build: Build[S]) -> None:
        self.service = service
        self.health = service.health
        self.exit_code = ExitCode.OK
        self._build = build
        self._main: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        brokers = [service.broker] if service.broker else []
        frame = Frame(self, *brokers, asgi_routes=ops_routes(self.health), lifespan=self._lifespan, logger=None)
        self.server = OpsServer(_server_config(frame))

    def listen_to_signals(self) -> None:
        """Let SIGTERM and SIGINT stop the process; a second one cuts the draining short."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop, signum.name)

    def stop(self, why: str) -> None:
        """Begin to drain; if it drains already, cancel what still runs; if it still starts, give up starting."""
        again = self.health.draining
        log.info("stopping now" if again else "draining", why=why)
        self.health.drain()
        metrics.ready.set(0)
        self.service.stopping.set()
        if not self._tasks and self._main is not None and self._main is not asyncio.current_task():
            self._main.cancel()
        for task in self._tasks if again else ():
            task.cancel()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        ticker = asyncio.create_task(self._tick(), name=EVENT_LOOP)
        self._main = asyncio.create_task(self._run(), name="main")
        try:
            yield
        finally:
            await self._main
            ticker.cancel()

    async def _run(self) -> None:
        """Build, work, close; whatever happens, the server ends afterwards."""
        try:
            if not self.service.stopping.is_set():
                async with self._build(self.service) as jobs:
                    await self._work(jobs)
        except asyncio.CancelledError:
            log.warning("given up", started=self.health.started)
            self.exit_code = self.exit_code or (ExitCode.CUT_SHORT if self.health.started else ExitCode.OK)
        except Exception as error:  # noqa: BLE001 - the one place where a service's end is told
            self._fail("the service failed", error)
        finally:
            self.server.should_exit = True

    async def _work(self, jobs: Jobs) -> None:
        """Run the broker around the loops: it is there before them and until the last has ended."""
        broker = self.service.broker
        if broker is None:
            await self._run_loops(jobs)
            return
        try:
            await self._start_frameworks_broker(broker, jobs)
            await self._run_loops(jobs)
        finally:
            await broker.stop()

    async def _start_frameworks_broker(self, broker: KafkaBroker, jobs: Jobs) -> None:
        try:
            await broker.start()
        except BaseException:
            for job in jobs.values():
                job.close()
            raise
        adopt_library_loggers()

    async def _run_loops(self, jobs: Jobs) -> None:
        """Run the loops until the process is told to stop or one of them ends, then drain."""
        self._tasks = {asyncio.create_task(job, name=name) for name, job in jobs.items()}
        settle_garbage_collection()
        self.health.ok(ASSEMBLED)
        log.info("started", loops=sorted(jobs))
        stopped = asyncio.create_task(self.service.stopping.wait(), name="stopping")
        await asyncio.wait({*self._tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await self._drain()

    async def _drain(self) -> None:
        """Judge what ended, stop taking work, give the loops their grace, then cancel what is left."""
        self._judge({task for task in self._tasks if task.done()})
        if not self.health.draining:
            self.stop("a loop ended")
        for subscriber in self.service.broker.subscribers if self.service.broker else ():
            await subscriber.stop()
        running = {task for task in self._tasks if not task.done()}
        await self._wait_for_the_end_of(running)
        self._judge(running)
        self._tasks.clear()

    async def _wait_for_the_end_of(self, running: set[asyncio.Task[None]]) -> None:
        if running:
            await asyncio.wait(running, timeout=self.service.settings.ops.drain_grace_ms / 1000)
        late = {task for task in running if not task.done()}
        for task in late:
            log.error("loop did not finish in the drain grace; cancelled", loop=task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_GRACE_S)

    def _judge(self, tasks: set[asyncio.Task[None]]) -> None:
        """Say of every ended loop whether it ended as it should."""
        for task in tasks:
            if not task.done() or task.cancelled():
                self.exit_code = self.exit_code or ExitCode.CUT_SHORT
            elif task.exception() is not None:
                self._fail(f"loop {task.get_name()} failed", task.exception())
            elif not self.service.stopping.is_set():
                self._fail(f"loop {task.get_name()} ended although nothing stopped it", None)

    def _fail(self, what: str, error: BaseException | None) -> None:
        self.exit_code = ExitCode.FAILED
        log.critical(what, exc_info=error)

    async def _tick(self) -> None:
        """Measure the event loop's lag and tell that it lives."""
        clock = self.service.clock
        while True:
            before = clock.monotonic()
            await asyncio.sleep(TICK_S)
            metrics.event_loop_lag_seconds.observe(max(0.0, clock.monotonic() - before - TICK_S))
            metrics.ready.set(int(self.health.ready))
            self.health.tick(EVENT_LOOP)


def settle_garbage_collection() -> None:
    """Take what the start-up made out of the collector's sight, and collect the rest rarely.

    Cyclic collection cost 16 % of a checkpoint process when it was measured: the hot path makes few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def _server_config(frame: AsgiFastStream) -> uvicorn.Config:
    return uvicorn.Config(
        frame,
        lifespan="on",
        loop="asyncio",
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


def _listen(ops: OpsSettings) -> socket.socket:
    """Open the operations port before anything else, so that a taken one is found at once."""
    family = socket.AF_INET6 if ":" in ops.host else socket.AF_INET
    return socket.create_server((ops.host, ops.port), family=family, backlog=64)


def _version(name: str) -> str:
    """Return the version of the service's distribution."""
    try:
        return version(f"flux-{name}")
    except PackageNotFoundError:
        return "unknown"
