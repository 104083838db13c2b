"""Service processes: ready by their own word, with an environment of their own, gone when told."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest

from flux_devkit import supervise
from flux_devkit.errors import StartFailed
from flux_devkit.services import Service, ServiceOptions, Services

MODULE = textwrap.dedent('''
    """A service: not ready at first, says what it sees, ends with status 0 on SIGTERM."""
    import http.server, os, signal, sys

    class Answer(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self):
            Answer.asked += 1
            self.send_response(404 if self.path != "/readyz" else 503 if Answer.asked < 3 else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    print(sys.argv[1:], {k: v for k, v in os.environ.items() if k.startswith("FLUX_") and k != "FLUX_OPS_PORT"}, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.HTTPServer(("127.0.0.1", int(os.environ["FLUX_OPS_PORT"])), Answer).serve_forever()
''')


@pytest.fixture
def options(tmp_path: Path) -> ServiceOptions:
    """A service that lives in the test's own folder."""
    (tmp_path / "answering.py").write_text(MODULE)
    return ServiceOptions("answering", "answering", {"PYTHONPATH": str(tmp_path), "FLUX_GIVEN": "yes"})


def test_a_service_is_ready_when_it_says_so_and_ends_in_order(options: ServiceOptions, tmp_path: Path) -> None:
    """503 is not ready; SIGTERM ends it with its own status."""
    service = Service(options, tmp_path / "logs").start()
    seen = (service.ready(), service.probe("/other"), service.alive)

    assert (seen, service.stop(), service.ready(), service.alive) == ((True, 404, True), 0, False, False)


def test_only_the_given_flux_variables_reach_it(
    options: ServiceOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sourced dev.env does not leak into a service under test."""
    monkeypatch.setenv("FLUX_LEAKED", "no")
    service = Service(options, tmp_path / "logs").start()
    service.stop()

    assert service.log.read_text() == "['serve'] {'FLUX_GIVEN': 'yes'}\n"


def test_a_killed_service_starts_again_on_its_port(options: ServiceOptions, tmp_path: Path) -> None:
    """SIGKILL and restart, as chaos does."""
    service = Service(options, tmp_path / "logs").start()
    port, pid = service.ops_port, service.process.pid
    service.kill()
    gone = supervise.wait_until_gone([pid], 5) == []
    service.restart()
    ready = service.ready()
    service.stop()

    assert (gone, ready, service.ops_port) == (True, True, port)


def test_a_paused_service_does_not_answer_until_it_is_resumed(options: ServiceOptions, tmp_path: Path) -> None:
    """SIGSTOP and SIGCONT."""
    service = Service(options, tmp_path / "logs").start()
    service.pause()
    while_paused = service.probe("/readyz", timeout_seconds=0.5)
    service.resume()
    resumed = service.probe("/readyz", timeout_seconds=20)
    service.stop()

    assert (while_paused, resumed) == (None, 200)


def test_one_that_dies_while_starting_shows_its_last_words_and_stops_the_others(
    options: ServiceOptions, tmp_path: Path
) -> None:
    """All services of a group run, or none."""
    broken = ServiceOptions("broken", "no_such_module", options.env)
    services = Services([options, broken], tmp_path / "logs")
    with pytest.raises(StartFailed, match="No module named no_such_module"):
        services.start()

    assert [service.alive for service in services] == [False, False]


def test_a_group_starts_and_stops_together(options: ServiceOptions, tmp_path: Path) -> None:
    """Exit statuses by name; a killed one has none."""
    second = ServiceOptions("second", options.module, options.env)
    services = Services([options, second], tmp_path / "logs").start()
    ready = [service.ready() for service in services]
    services["second"].kill()

    assert (ready, services.stop()) == ([True, True], {"answering": 0, "second": None})


def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """128 + 9 tells."""
    deaf = MODULE.replace(
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))", "signal.signal(signal.SIGTERM, print)"
    )
    (tmp_path / "deaf.py").write_text(deaf)
    options = ServiceOptions("deaf", "deaf", {"PYTHONPATH": str(tmp_path)}, grace_seconds=0.3)
    service = Service(options, tmp_path / "logs").start()

    assert service.stop() == 128 + signal.SIGKILL
