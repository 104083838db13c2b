"""Stops and probes, watched from outside as an orchestrator watches them: for tests and proofs.

A stop is told by four things: what `/readyz` answered after the signal, how long it took, the exit status, and
whether the process was still named in its groups when it had ended (one that was killed stays until its session is over).
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from flux_common.contracts.catalogue import GROUPS
from flux_devkit.installation import Installation
from flux_devkit.services import Service, answer

ASK_SECONDS = 10.0
STOP_SECONDS = 0.01  # between two looks at a service that stops: a drain may take a tenth of a second
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Stop:
    """How a service ended that was told to."""

    service: str
    status: int | None
    seconds: float
    answers: tuple[int, ...]  # of /readyz to what was asked after the signal
    members: dict[str, int]  # of its groups, right after its end

    @property
    def unready_at_once(self) -> bool:
        """Whether `/readyz` was seen to fail, and said yes to the first question at most: the signal and that one raced."""
        return 503 in self.answers and set(self.answers[1:]) <= {503}


def stop_watched(installation: Installation, service: Service) -> Stop:
    """Stop a service as an orchestrator does, asking `/readyz` all the time."""
    begun = time.monotonic()
    answers = tuple(status for status in _answers_after_sigterm(service) if status is not None)
    seconds = time.monotonic() - begun
    exit_status = service.stop()
    name = service.options.module.removeprefix("flux_")
    return Stop(name, exit_status, seconds, answers, members(installation, name))


def _answers_after_sigterm(service: Service) -> Iterator[int | None]:
    """The first question is on a connection that was open before, so that the shortest drain is seen.

    An event loop that was busy just then finds question and signal together, and may take the question first. Whatever is
    asked once that is answered comes after the signal.
    """
    line = service.line()
    line.connect()
    service.process.send_signal(signal.SIGTERM)
    yield answer(line, "/readyz")[0]
    while service.alive:
        yield service.probe("/readyz", timeout_seconds=1.0)
        time.sleep(STOP_SECONDS)


def members(installation: Installation, service: str) -> dict[str, int]:
    """Return how many members each group of a service has."""
    client = AdminClient(installation.kafka().confluent_options(), logger=logging.getLogger(__name__))
    named = {installation.topic_prefix + g.name: g.purpose for g in GROUPS if g.service == service}
    answers = client.describe_consumer_groups(list(named), request_timeout=ASK_SECONDS)
    return {named[group]: len(answer.result(ASK_SECONDS).members) for group, answer in answers.items()}


class Sampling:
    """Asks a probe of several services all the time inside a block; `answers` are what each said, without time-outs."""

    def __init__(self, path: str, services: Iterable[Service]) -> None:
        self._path, self._services = path, list(services)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sampling {path}")
        self.answers: defaultdict[str, set[int]] = defaultdict(set)
        self.reasons: dict[str, dict[str, str]] = {}

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            for service in self._services:
                status, why = service.why(self._path)
                if status is not None:
                    self.answers[service.options.name].add(status)
                    self.reasons |= {service.options.name: why} if why else {}

    def __enter__(self) -> Sampling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
