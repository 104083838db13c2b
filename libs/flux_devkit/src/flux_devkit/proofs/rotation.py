"""Key rotation under load: an issuer changes its key while requests come in, and nobody notices but the old key's thief.

An ingest process runs on real servers, and its agency's issuer publishes its keys over TLS. Two producers send steadily:
one with a token minted for each request, and one with one token for all of them, which ingest remembers. The story:

| act | published | the good producers sign with | a request signed by the old key |
|---|---|---|---|
| before | old | old | is good |
| announced | old and new | old | is good |
| used | old and new | new, after a refresh interval | – |
| revoked | new | new | is a thief's: refused within a refresh interval and `MARGIN_S` |

What is measured is how long after the revocation a request still arrived (Kafka had acknowledged it) that was accepted.
The margin is for what comes on top of the interval: a tick of the refresher (0.2 s), the fetch itself on a busy machine,
a batch that was begun with the old keys, and the acknowledgement.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flux_client.development import DevelopmentAgency
from flux_client.keys import SigningKey, generate_key
from flux_client.producer import ACCEPTED, FluxProducer
from flux_client.streams import EventStream, FollowerSource
from flux_client.tokens import IssuerKey
from flux_common.contracts.catalogue import DECISIONS
from flux_common.kernel.clock import SystemClock
from flux_common.kernel.positions import Position, TopicPartition
from flux_devkit.certificates import Authority
from flux_devkit.errors import DevkitError
from flux_devkit.finding import Finding, report
from flux_devkit.identity import IdentityProvider
from flux_devkit.installation import Installation
from flux_devkit.kafka import delete_topics
from flux_devkit.postgres import create_database, drop_database
from flux_devkit.servers import Servers
from flux_devkit.services import Services

AGENCY: Final = "nasa"
MARGIN_S: Final = 1.0
ANSWER_SECONDS: Final = 60.0
UNBRAKED: Final = 1_000_000  # each refusal is to be seen


@dataclass(frozen=True)
class Load:
    """How hard, how long and how often: requests a second of each producer, seconds of an act, the refresh interval."""

    rate: float = 40.0
    act_s: float = 5.0
    refresh_s: float = 2.0


@dataclass(frozen=True)
class Figures:
    """What was seen. `refused_after_s`: how long after the revocation the last of its requests came that was accepted."""

    good_sent: int
    good_refused: Mapping[str, int]
    revoked_sent: int
    revoked_refused: Mapping[str, int]
    refused_after_s: float
    refresh_s: float

    def findings(self) -> Iterator[Finding]:
        """Say what holds."""
        refused = sum(self.good_refused.values())
        said = f"{refused} of {self.good_sent} good requests refused {dict(self.good_refused) or ''}".rstrip()
        yield Finding("key rotation under load", refused == 0 and self.good_sent > 0, said, "none")
        bound = self.refresh_s + MARGIN_S
        ended = sum(self.revoked_refused.values())
        holds = ended > 0 and self.refused_after_s <= bound
        said = f"accepted for {self.refused_after_s:.2f} s, then {ended} of {self.revoked_sent} requests refused"
        yield Finding("a revoked key, fresh and remembered tokens", holds, said, f"{bound:.2f} s")


@dataclass
class Stage:
    """The running ingest, its issuer, and by position what was sent (and when that had arrived) and how it was answered."""

    installation: Installation
    provider: IdentityProvider
    good: dict[Position, float] = field(default_factory=dict)
    stolen: dict[Position, float] = field(default_factory=dict)
    answers: dict[Position, str] = field(default_factory=dict)

    def producers(self, key: SigningKey) -> list[FluxProducer]:
        """Return one producer that mints for each request, and one with one token for all."""
        issuer, kafka = IssuerKey(key), self.installation.kafka()
        token = issuer.token(AGENCY, SystemClock().now())
        return [FluxProducer(AGENCY, kafka, key=issuer), FluxProducer(AGENCY, kafka, token=token)]

    async def listen(self, decisions: EventStream) -> None:
        """Note the code of each decision, empty for an acceptance, for ever."""
        async for event in decisions:
            named: Any = event.body
            place = TopicPartition(named.position.topic, named.position.kafka_partition).at(named.position.offset)
            self.answers[place] = "" if event.type in ACCEPTED else str(getattr(named, "code", event.type))

    async def send(self, producer: FluxProducer, kept: dict[Position, float]) -> None:
        """Send a good request and keep where it stands."""
        submitted = await producer.submit(_request())
        kept[submitted.position] = time.monotonic()

    async def stream(self, producers: list[FluxProducer], kept: dict[Position, float], load: Load, done: Done) -> None:
        """Send steadily, whatever the answers, until `done`."""
        begun, number, sending = time.monotonic(), 0, set[asyncio.Task[None]]()
        while not done():
            for producer in producers:
                sending.add(asyncio.create_task(self.send(producer, kept)))
            number += 1
            await asyncio.sleep(max(0.0, begun + number / load.rate - time.monotonic()))
        await asyncio.gather(*sending)

    async def answered(self) -> None:
        """Wait until each request has its answer. Raises DevkitError."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while missing := (self.good.keys() | self.stolen.keys()) - self.answers.keys():
            if time.monotonic() > deadline:
                raise DevkitError(f"{len(missing)} requests have no answer, such as {min(map(str, missing))}")
            await asyncio.sleep(0.1)


Done = Callable[[], bool]


async def rotate_under_load(
    servers: Servers, folder: Path, load: Load | None = None, *, role_password: str | None = None
) -> Figures:
    """Run the story on `servers`, in a database and under a prefix of its own, and return what was seen."""
    load, old, new = load or Load(), generate_key("ES256"), generate_key("EdDSA")
    async with _stage(servers, folder, load, role_password) as stage:
        stage.provider.publish(old)
        services = Services(stage.installation.services(["ingest"]), folder)
        await asyncio.to_thread(services.start)
        try:
            return await _play(stage, load, old, new)
        finally:
            await asyncio.to_thread(services.stop)


async def _play(stage: Stage, load: Load, old: SigningKey, new: SigningKey) -> Figures:
    theirs, ours = stage.producers(old), stage.producers(new)
    decisions = EventStream(FollowerSource(stage.installation.kafka(), DECISIONS.of(AGENCY), "end"))
    async with decisions:
        listening = asyncio.create_task(stage.listen(decisions))
        try:
            await stage.stream(theirs, stage.good, load, after(load.act_s))
            stage.provider.publish(old, new)
            await stage.stream(theirs, stage.good, load, after(load.refresh_s + MARGIN_S))
            await stage.stream(ours, stage.good, load, after(load.act_s))
            revoked_at = time.monotonic()
            stage.provider.publish(new)
            end = after(load.refresh_s + MARGIN_S + load.act_s)
            thief, good = stage.stream(theirs, stage.stolen, load, end), stage.stream(ours, stage.good, load, end)
            await asyncio.gather(thief, good)
            await stage.answered()
        finally:
            listening.cancel()
            await asyncio.gather(listening, *(each.close() for each in [*theirs, *ours]), return_exceptions=True)
    return _figures(stage, load, revoked_at)


def _figures(stage: Stage, load: Load, revoked_at: float) -> Figures:
    good = Counter(code for place in stage.good if (code := stage.answers[place]))
    revoked = Counter(code for place in stage.stolen if (code := stage.answers[place]))
    last_s = (
        max((at for place, at in stage.stolen.items() if not stage.answers[place]), default=revoked_at) - revoked_at
    )
    return Figures(len(stage.good), good, len(stage.stolen), revoked, last_s, load.refresh_s)


@asynccontextmanager
async def _stage(servers: Servers, folder: Path, load: Load, role_password: str | None) -> AsyncIterator[Stage]:
    """Make what the story needs, and leave nothing of it on the servers."""
    authority = Authority.create(folder / "authority")
    with IdentityProvider(authority.server("127.0.0.1")) as provider:
        variables = {
            "FLUX_JWKS_REFRESH_MS": str(round(load.refresh_s * 1000)),
            "FLUX_JWKS_CA_FILE": str(authority.file),
        }
        agency = DevelopmentAgency(
            AGENCY, "NASA", jwks_url=provider.url, algorithms=("ES256", "EdDSA"), rejects_per_minute=UNBRAKED
        )
        installation = Installation(
            servers, folder / "keys", folder / "data", f"rotation_{secrets.token_hex(6)}", f"r{secrets.token_hex(3)}.",
            [agency], overrides={"ingest": variables}, role_password=role_password,
        )  # fmt: skip
        await asyncio.to_thread(create_database, servers.postgres_dsn, installation.database)
        try:
            await installation.prepare()
            yield Stage(installation, provider)
        finally:
            await asyncio.to_thread(drop_database, servers.postgres_dsn, installation.database)
            await asyncio.to_thread(delete_topics, installation.kafka().confluent_options(), installation.topic_prefix)


def after(seconds: float) -> Done:
    """Return what is true once `seconds` from now have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _request() -> dict[str, Any]:
    return {
        "request_id": f"rotation-{secrets.token_hex(8)}",
        "source": {"uri": "memory:///in/"},
        "content_type": "text",
        "use_case": "research",
        "destination": {"uri": "memory:///out/"},
    }


@contextmanager
def _own_servers() -> Iterator[tuple[Servers, Path]]:
    """Start servers for this proof alone, and give a folder that is deleted with them."""
    from flux_devkit.home import locate
    from flux_devkit.servers import choose_kafka, choose_postgres
    from flux_devkit.sessions import open_session

    session = open_session(locate())
    kafka, postgres = choose_kafka(session.place), choose_postgres(session.place)
    try:
        for server in (kafka, postgres):
            server.begin()
        for server in (kafka, postgres):
            server.wait_ready()
        yield Servers(kafka.bootstrap, postgres.dsn), session.folder / "data" / "rotation"
    finally:
        kafka.stop()
        postgres.stop()
        session.close()


def main() -> int:
    """Prove it; 0 if all holds. Takes about a minute."""
    with _own_servers() as (servers, folder):
        folder.mkdir(parents=True)
        figures = asyncio.run(rotate_under_load(servers, folder))
    return report(figures.findings())


if __name__ == "__main__":
    sys.exit(main())
