"""How a service starts, lives and stops; the only room with signals, exit codes and the process's clock.

A service hands over its settings and one async context manager, `build`, that opens what it needs and yields its loops.
The rest — waiting for what is not there yet, probes, metrics, draining, exit codes — is the same for all of them.
"""

from flux_common.runtime.health import Health
from flux_common.runtime.retry import Backoff
from flux_common.runtime.service import Build, ExitCode, Jobs, Service, serve
from flux_common.runtime.waiting import kafka_answers, postgres_answers, topics_exist, wait_for

__all__ = [
    "Backoff",
    "Build",
    "ExitCode",
    "Health",
    "Jobs",
    "Service",
    "kafka_answers",
    "postgres_answers",
    "serve",
    "topics_exist",
    "wait_for",
]
