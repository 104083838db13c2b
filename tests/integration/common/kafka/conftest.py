"""Settings, topics and a small real lane store for the kafka room's suites."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from flux_common.kafka.admin import Admin
from flux_common.kernel.errors import Unavailable
from flux_common.kernel.positions import TopicPartition
from flux_common.settings import KafkaSettings
from flux_devkit.plugin import Database

MEMBER = Path(__file__).with_name("member.py")

CreateTopic = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def database_template() -> str:
    """These suites make their own two tables; Flux's schema is not needed."""
    return "template1"


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    """Settings of a client of the session's Kafka, behind this test's own prefix."""
    return KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, session_timeout_ms=6000)


@pytest.fixture
def create_topic(settings: KafkaSettings) -> CreateTopic:
    """Create a topic by the name that Flux uses; keywords are topic settings with `_` for `.`."""

    async def create(name: str, partitions: int = 1, **config: str) -> str:
        client = AdminClient({"bootstrap.servers": settings.bootstrap})
        topic = NewTopic(
            settings.topic(name), partitions, 1, config={key.replace("_", "."): value for key, value in config.items()}
        )
        for future in client.create_topics([topic]).values():
            await asyncio.to_thread(future.result, 10)
        tps = [TopicPartition(name, n) for n in range(partitions)]
        await _until(lambda: _leaders(settings, tps))  # metadata lags behind creation
        return name

    return create


@pytest.fixture(scope="session")
def member() -> ModuleType:
    """The module of `member.py`."""
    spec = importlib.util.spec_from_file_location("lane_member", MEMBER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def store(database: Database, member: ModuleType) -> AsyncIterator[Any]:
    """A `TableStore` on this test's own database."""
    async with asyncpg.create_pool(database.dsn, min_size=1, max_size=4) as pool:
        await pool.execute(member.TABLES)
        yield member.TableStore(pool)


@pytest.fixture
def running(settings: KafkaSettings, store: Any, member: ModuleType) -> Callable[..., Any]:
    """Run a lane loop on `store` inside a block; keywords go to the loop."""

    @asynccontextmanager
    async def run(topic: str, **options: Any) -> AsyncIterator[Any]:
        stopping = asyncio.Event()
        loop = member.loop_on(store, options.pop("settings", settings), topic, **options)
        task = asyncio.create_task(loop.run(stopping))
        try:
            yield loop
        finally:
            stopping.set()
            await asyncio.wait_for(task, 30)

    return run


async def _leaders(settings: KafkaSettings, tps: list[TopicPartition]) -> bool:
    with contextlib.suppress(Unavailable):
        return len(await Admin(settings).logs(tps)) == len(tps)
    return False


async def _until(holds: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := await holds()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {seconds} s")
        await asyncio.sleep(0.05)
    return found


@pytest.fixture
def until() -> Callable[..., Awaitable[Any]]:
    """Wait until an asynchronous condition holds, and return what it returned."""
    return _until
