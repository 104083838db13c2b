"""The frame of a service as a real process: probes, signals, draining, faults, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

TOY = Path(__file__).with_name("toy_service.py")
UNREACHABLE = "127.0.0.1:1"


@dataclass
class Toy:
    """A running toy service: its process, its operations port and what it logged so far."""

    process: asyncio.subprocess.Process
    notes_file: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    async def until(self, event: str, **values: object) -> dict[str, Any]:
        """Read the log up to the line that says `event` with `values`."""
        assert self.process.stderr is not None
        while raw := await self.process.stderr.readline():
            line: dict[str, Any] = json.loads(raw)
            self.lines.append(line)
            if line["event"] == event and values.items() <= line.items():
                return line
        raise AssertionError(f"the toy ended without saying {event!r}: {self.lines}")

    async def get(self, path: str) -> tuple[int, str]:
        """Ask the operations port."""
        return await asyncio.to_thread(_get, self.port, path)

    async def why(self, probe: str) -> tuple[int, dict[str, str]]:
        """Return a probe's status and its reasons."""
        status, body = await self.get(probe)
        return status, json.loads(body)["why"]

    async def end(self, signum: signal.Signals | None = None) -> int:
        """Send `signum` and return the exit code; the rest of the log is read."""
        if signum is not None:
            self.process.send_signal(signum)
        assert self.process.stderr is not None
        rest = await self.process.stderr.read()
        self.lines += [json.loads(raw) for raw in rest.splitlines()]
        return await self.process.wait()

    def notes(self) -> list[str]:
        """Return what the toy noted."""
        return self.notes_file.read_text().split()

    def said(self, event: str) -> dict[str, Any]:
        """Return the one line that says `event`."""
        (line,) = [line for line in self.lines if line["event"] == event]
        return line


def _get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@asynccontextmanager
async def toy(tmp_path: Path, **variables: str) -> AsyncIterator[Toy]:
    """Run the toy until its operations port is open; kill it at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")} | {
        "FLUX_OPS_PORT": "0",
        "FLUX_OPS_DRAIN_GRACE_MS": "5000",
        "FLUX_TOY_NOTES": str(tmp_path / "notes"),
        "FLUX_KAFKA_BOOTSTRAP": UNREACHABLE,
        "FLUX_POSTGRES_DSN": f"postgresql://toy@{UNREACHABLE}/toy",
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(TOY), "serve", env=environment, stderr=asyncio.subprocess.PIPE, limit=2**20
    )
    running = Toy(process, tmp_path / "notes")
    try:
        running.port = (await running.until("operations port open"))["port"]
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_exits_0(tmp_path: Path, signum: signal.Signals) -> None:
    """At a signal /readyz fails at once while /livez goes on, the loop finishes, `build` closes, and the exit is 0."""
    async with toy(tmp_path) as running:
        await running.until("started")
        assert (await running.why("/readyz"), await running.why("/startupz")) == ((200, {}), (200, {}))

        running.process.send_signal(signum)
        await running.until("draining")
        during = (await running.why("/readyz"), (await running.why("/livez"))[0])
        code = await running.end()

    assert during == ((503, {"draining": "the process was told to stop"}), 200)
    assert (code, running.notes()) == (0, ["opened", "finished", "closed"])


async def test_a_kept_connection_does_not_hold_the_end_up(tmp_path: Path) -> None:
    """A scraper that keeps its connection open cannot keep the process alive."""
    async with toy(tmp_path) as running:
        await running.until("started")
        with socket.create_connection(("127.0.0.1", running.port)) as kept:
            kept.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.to_thread(kept.recv, 4096)
            code = await running.end(signal.SIGTERM)

    assert code == 0


async def test_a_failing_loop_ends_the_process_and_says_why(tmp_path: Path) -> None:
    """The exit is 1, `build` is closed, and the log holds code, context and frames."""
    async with toy(tmp_path, FLUX_TOY_MODE="fail") as running:
        code = await running.end()
    error = running.said("loop toy failed")["error"]

    assert (code, running.notes()) == (1, ["opened", "closed"])
    assert (error["code"], error["context"]) == ("INVARIANT_BROKEN", {"run_id": "r-1"})
    assert any("in fail" in frame for frame in error["stack"])


async def test_a_loop_that_just_returns_ends_the_process(tmp_path: Path) -> None:
    """A service does not live on with a part of itself missing."""
    async with toy(tmp_path, FLUX_TOY_MODE="leave") as running:
        code = await running.end()

    assert code == 1
    assert running.said("loop toy ended although nothing stopped it")["level"] == "critical"


async def test_a_loop_that_will_not_stop_is_cut_short(tmp_path: Path) -> None:
    """After the drain grace the loop is cancelled, which the exit code 3 and a line say."""
    async with toy(tmp_path, FLUX_TOY_MODE="refuse", FLUX_OPS_DRAIN_GRACE_MS="100") as running:
        await running.until("started")
        code = await running.end(signal.SIGTERM)

    assert (code, running.notes()) == (3, ["opened", "closed"])
    assert running.said("loop did not finish in the drain grace; cancelled")["loop"] == "toy"


async def test_a_second_signal_cuts_the_draining_short(tmp_path: Path) -> None:
    """Who cannot wait for the grace says so twice."""
    async with toy(tmp_path, FLUX_TOY_MODE="refuse", FLUX_OPS_DRAIN_GRACE_MS="200000") as running:
        await running.until("started")
        running.process.send_signal(signal.SIGINT)
        await running.until("draining")
        code = await running.end(signal.SIGINT)

    assert (code, running.notes()) == (3, ["opened", "closed"])


async def test_start_up_waits_and_says_for_what(tmp_path: Path) -> None:
    """While a dependency is away the process lives, is not started, and names what it waits for; then it starts."""
    with socket.socket() as gate:
        gate.bind(("127.0.0.1", 0))
        async with toy(tmp_path, FLUX_TOY_GATE_PORT=str(gate.getsockname()[1])) as running:
            said = await running.until("waiting")
            statuses = [(await running.get(path))[0] for path in ("/startupz", "/readyz", "/livez")]
            reasons = (await running.why("/startupz"))[1]
            gate.listen()
            await running.until("started")
            ready = await running.why("/readyz")

    assert (said["dependency"], said["level"]) == ("gate", "warning")
    assert statuses == [503, 503, 200]
    assert "ConnectionRefusedError" in reasons["gate"]
    assert ready == (200, {})


@pytest.mark.parametrize(
    ("dependency", "reason"), [("kafka", "BROKER_UNAVAILABLE"), ("postgres", "ConnectionRefusedError")]
)
async def test_a_start_that_waits_can_be_given_up(tmp_path: Path, dependency: str, reason: str) -> None:
    """Kafka and PostgreSQL are waited for, and a signal ends the waiting with exit 0."""
    async with toy(tmp_path, FLUX_TOY_WAIT_FOR=dependency) as running:
        said = await running.until("waiting", dependency=dependency)
        code = await running.end(signal.SIGTERM)

    assert reason in said["why"]
    assert code == 0
    assert not running.notes_file.exists()


async def test_a_loop_that_stops_ticking_fails_livez(tmp_path: Path) -> None:
    """A stuck loop is named by /livez while the event loop still answers."""
    async with toy(tmp_path, FLUX_TOY_MODE="stall", FLUX_OPS_LOOP_STALL_MS="1500") as running:
        await running.until("started")
        before = (await running.why("/livez"))[0]
        answer = await _refusal(running, "/livez")

    assert before == 200
    assert list(answer[1]) == ["toy"]


async def _refusal(running: Toy, probe: str) -> tuple[int, dict[str, str]]:
    for _ in range(300):
        answer = await running.why(probe)
        if answer[0] != 200:
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"{probe} never refused")


async def test_metrics_logs_and_spans_of_a_real_process(tmp_path: Path) -> None:
    """Metrics parse; every line of every logger has the one shape; spans go to the file, and no secret anywhere."""
    spans_file = tmp_path / "spans.ndjson"
    async with toy(tmp_path, FLUX_TRACE_FILE=str(spans_file)) as running:
        await running.until("working")
        status, text = await running.get("/metrics")
        await running.end(signal.SIGTERM)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (span,) = [json.loads(line) for line in spans_file.read_text().splitlines()]
    line = running.said("working")

    assert status == 200
    assert families["flux_build_info"].samples[0].labels["service"] == "toy"
    assert {"ts", "level", "service", "logger", "event", "trace_id", "span_id"} <= set.intersection(
        *(set(line) for line in running.lines)
    )
    assert "uvicorn.error" in {line["logger"] for line in running.lines}
    assert (span["name"], "0x" + line["trace_id"]) == ("toy step", span["context"]["trace_id"])
    assert "canary-word" not in json.dumps(running.lines) + text + json.dumps(span)


async def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    """The operations port is opened first, and a taken one names the variable to change."""
    refused = pytest.raises(AssertionError, match="set FLUX_OPS_PORT to a free one")
    with socket.create_server(("127.0.0.1", 0)) as taken, refused:
        async with toy(tmp_path, FLUX_OPS_PORT=str(taken.getsockname()[1])):
            pass


async def _command(*arguments: str, **variables: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")} | variables
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(TOY),
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return await process.wait(), out.decode(), err.decode()


async def test_wrong_settings_end_with_2_and_a_line_each() -> None:
    """`serve` and `check-settings` refuse wrong settings with exit 2, one line per fault, and no traceback."""
    serving = await _command("serve", FLUX_OPS_PORT="none")
    checking = await _command("check-settings", FLUX_OPS_PORT="none")

    assert (serving[0], checking[0], serving[2]) == (2, 2, checking[2])
    assert [line.split(" ")[0] for line in serving[2].splitlines()] == [
        "FLUX_OPS_PORT",
        "FLUX_TOY_NOTES",
        "FLUX_KAFKA_BOOTSTRAP",
        "FLUX_POSTGRES_DSN",
        "See:",
    ]
    assert "FLUX_KAFKA_BOOTSTRAP" in checking[1]


async def test_help_explains_the_commands() -> None:
    """`--help` names every command that the service has, and only those."""
    code, out, _ = await _command("--help")

    assert code == 0
    assert "serve" in out
    assert "check-settings" in out
    assert "migrate" not in out
