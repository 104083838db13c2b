"""The start-up's probes against a real PostgreSQL and a real Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Unavailable
from flux_common.runtime import kafka_answers, postgres_answers, topics_exist, waiting
from flux_common.settings import KafkaSettings, PostgresSettings
from flux_devkit.plugin import Database


def _settings(database: Database, password_file: Path, password: str | None = None) -> PostgresSettings:
    parts = urlsplit(database.dsn)
    password_file.write_text(password or parts.password or "none")
    dsn = urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))
    return PostgresSettings(dsn=dsn, password_file=password_file)


async def test_postgres_answers_with_the_password_of_the_file(database: Database, tmp_path: Path) -> None:
    """A login over TCP with the secret of its file, and with the time-outs that the settings name."""
    await postgres_answers(_settings(database, tmp_path / "password"), "flux-toy")()


async def test_a_refused_login_is_waited_for_and_says_no_secret(database: Database, tmp_path: Path) -> None:
    """A wrong password is an outage until the right one is mounted; the reason does not repeat it."""
    with pytest.raises(Unavailable) as caught:
        await postgres_answers(_settings(database, tmp_path / "password", "canary-word"), "flux-toy")()

    assert caught.value.code == Code.DATABASE_UNAVAILABLE
    assert "canary-word" not in str(caught.value)


async def test_kafka_answers_and_missing_topics_are_named(kafka_bootstrap: str, topic_prefix: str) -> None:
    """The prefix belongs to the name of the topic that has to be made."""
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    await kafka_answers(settings)()

    with pytest.raises(Unavailable, match=f"no topic {topic_prefix}a; run the topics job"):
        await topics_exist(settings, ["a"])()


async def test_a_broker_that_takes_a_connection_and_never_answers_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One try is bounded, whatever the client's own time-outs add up to: the next one may find the broker ready."""
    monkeypatch.setattr(waiting, "TRY_SECONDS", 0.3)
    hung_up = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    async with silent, asyncio.timeout(10):
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
            await kafka_answers(KafkaSettings(bootstrap=f"{host}:{port}"))()
        await hung_up.wait()
