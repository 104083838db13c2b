"""Start-up waits for what it needs instead of crashing, and says what it waits for.

A deployment starts everything at once; brokers, database, topics and migrations come when they come. Only what a
dependency can mend by appearing is waited for (`Unavailable`, and errors of sockets and time); anything else is a
fault and ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from flux_common.kafka.admin import Admin
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, FluxError, Unavailable
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_common.runtime.health import Health
from flux_common.runtime.retry import Backoff
from flux_common.settings import KafkaSettings, PostgresSettings

Found = TypeVar("Found")
Probe = Callable[[], Awaitable[Found]]

SAID_AGAIN_EVERY: Final = 12
KAFKA_SECONDS: Final = 3.0  # how long a broker may take to say that it is there
ASK_SECONDS: Final = 5.0
TRY_SECONDS: Final = (
    10.0  # of one look for Kafka: a broker that is starting may take a connection and never answer on it
)

log = get_logger(__name__)


async def wait_for(health: Health, dependency: str, probe: Probe[Found], backoff: Backoff | None = None) -> Found:
    """Try `probe` until it succeeds, and return what it found; until then the process is neither started nor ready.

    A line is logged at the first try that fails, when the reason changes, and at every twelfth try.
    """
    health.require(dependency)
    pauses, said = backoff or Backoff(), ""
    while True:
        try:
            found = await probe()
        except (Unavailable, OSError, TimeoutError) as error:
            why = _reason(error)
            pause_s = pauses.next_s()
            health.fail(dependency, why)
            metrics.dependency_waits.labels(dependency).inc()
            if why != said or pauses.tries % SAID_AGAIN_EVERY == 0:
                log.warning("waiting", dependency=dependency, why=why, tries=pauses.tries)
            said = why
            await asyncio.sleep(pause_s)
        else:
            health.ok(dependency)
            log.info("dependency is there", dependency=dependency, tries=pauses.tries + 1)
            return found


async def ask(health: Health, dependency: str, asking: Awaitable[object]) -> None:
    """Say in `health` whether `dependency` answers now; for probes, which ask nobody themselves."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await asking
    except (FluxError, TimeoutError) as problem:
        health.fail(dependency, _reason(problem))
    else:
        health.ok(dependency)


def kafka_is_there(settings: KafkaSettings) -> Awaitable[None]:
    """Ask Kafka by the process's standing connection whether it is there; a login for each look would cost it more."""
    return Admin.of(settings).answers(KAFKA_SECONDS)


def kafka_answers(settings: KafkaSettings) -> Probe[None]:
    """Return a probe that Kafka answers and lets us in."""

    async def probe() -> None:
        await _topics(settings)

    return probe


def topics_exist(settings: KafkaSettings, names: Iterable[str]) -> Probe[None]:
    """Return a probe that every topic of `names` (as the catalogue writes them) exists."""
    wanted = {settings.topic(name) for name in names}

    async def probe() -> None:
        missing = sorted(wanted - await _topics(settings))
        if missing:
            raise Unavailable(Code.TOPIC_MISSING, f"no topic {', '.join(missing)}; run the topics job")

    return probe


def postgres_answers(settings: PostgresSettings, application_name: str) -> Probe[None]:
    """Return a probe that PostgreSQL answers and lets us in."""

    async def probe() -> None:
        try:
            connection = await asyncpg.connect(**settings.asyncpg_options(application_name))
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(
                Code.DATABASE_UNAVAILABLE, f"PostgreSQL refused: {error}", classification=Classification.STORAGE
            ) from error
        await connection.close()

    return probe


async def _topics(settings: KafkaSettings) -> set[str]:
    """Return the names of all topics that this principal can see."""
    admin: Any = AIOKafkaAdminClient(**settings.aiokafka_options())
    try:
        async with asyncio.timeout(TRY_SECONDS):
            await admin.start()
            return set(await admin.list_topics())
    except (KafkaError, TimeoutError) as error:
        why = str(error) or f"no answer within {TRY_SECONDS:g} s"
        raise Unavailable(Code.BROKER_UNAVAILABLE, f"Kafka at {settings.bootstrap}: {why}") from error
    finally:
        await admin.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, FluxError):
        return f"{error.code}: {error.message}"
    return f"{type(error).__name__}: {error}".rstrip(": ")
