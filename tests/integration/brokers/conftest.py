"""An installation on brokers with logins: topics of two agencies, and everybody's access as the code says it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from flux_common.contracts.access import Principal, principals
from flux_common.kafka.admin import create_topics
from flux_common.kafka.logins import apply, difference
from flux_common.settings import KafkaSettings
from flux_devkit.secured import SecuredKafka

PREFIX = "matrix."
AGENCIES = ("esa", "nasa")


@pytest.fixture(scope="session")
def everybody() -> tuple[Principal, ...]:
    """Return the logins of the installation."""
    return principals(dict.fromkeys(AGENCIES))


@pytest.fixture(scope="session")
def admin(secured_kafka: SecuredKafka, everybody: tuple[Principal, ...]) -> KafkaSettings:
    """Return the administrator's settings; topics and access are there."""
    settings = secured_kafka.settings(topic_prefix=PREFIX)
    asyncio.run(_prepare(settings, everybody))
    return settings


async def _prepare(settings: KafkaSettings, everybody: tuple[Principal, ...]) -> None:
    await create_topics(settings, AGENCIES, development=True)
    await apply(settings, await difference(settings, everybody))


@pytest.fixture
def login(secured_kafka: SecuredKafka, admin: KafkaSettings) -> Callable[[str], Awaitable[KafkaSettings]]:
    """Return the settings of a login; it is made if there is none of this name, and nothing is granted to it."""

    async def settings(name: str) -> KafkaSettings:
        await secured_kafka.make_logins([name])
        return secured_kafka.settings(name, admin.topic_prefix)

    return settings


@pytest.fixture(scope="session")
def until() -> Callable[..., Awaitable[None]]:
    """Wait until something asynchronous holds: what was granted is known to an authorizer a moment later."""

    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(100):
            if await holds():
                return
            await asyncio.sleep(0.2)
        raise AssertionError("not within 100 tries")

    return wait
