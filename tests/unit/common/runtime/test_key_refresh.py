"""Keeping fetched key sets current: on a real server, with a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_client.keys import SigningKey, generate_key
from flux_client.tokens import IssuerKey
from flux_common.auth import RecordContext, Refresh, RegistrySource, TokenRefused, VerifiedTokens, verify
from flux_common.auth.fetching import Fetcher, verifying
from flux_common.kernel.clock import FixedClock
from flux_common.kernel.codes import Code
from flux_common.observability import metrics
from flux_common.runtime.key_refresh import HURRIES_MAX, HURRY_EVERY_S, KeyRefresher, Pace
from flux_devkit.identity import Answer, IdentityProvider

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NASA, LOC = "https://issuer.nasa.example", "https://issuer.loc.example"
OLD, NEW = generate_key(), generate_key("EdDSA")
REFRESH_S = 60.0


@dataclass
class World:
    """An issuer whose keys are fetched, one whose keys are a file, and what verifies with them."""

    provider: IdentityProvider
    folder: Path
    source: RegistrySource
    clock: FixedClock
    refresher: KeyRefresher
    memory: VerifiedTokens

    async def fetch(self) -> int:
        """Do what is due; return how many sets were fetched."""
        return len(await asyncio.gather(*self.refresher.start_due()))

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with a look at what is due every second and at the files every minute."""
        for second in range(int(seconds)):
            self.clock.at += timedelta(seconds=1)
            self.clock.ticks += 1
            if second % 60 == 0:
                self.source.refresh(self.clock.now())
            await self.fetch()

    async def look(self, times: int) -> None:
        """Let the loop look at what is due, and tell what it sees."""
        pauses = iter([*[True] * times, False])

        async def pause(_seconds: float) -> bool:
            return next(pauses)

        await self.refresher.run(pause)

    def code(self, token: str, agency: str = "nasa") -> Code | None:
        """Return the code with which a token is refused that arrives now; None where it is accepted."""
        trust, now = self.source.trust, self.clock.now()
        digest = hashlib.sha256(b"{}").digest()
        record = RecordContext(f"flux.{agency}.run.requests.v1", b"r-1", digest, now, agency)
        try:
            verify(b"Bearer " + token.encode(), record, trust.registry, trust.keys, now, self.memory)
        except TokenRefused as refused:
            if refused.reason is Code.KEY_UNKNOWN:
                self.refresher.hurry(refused.context["iss"])
            return refused.reason
        return None

    def token(self, key: SigningKey, agency: str = "nasa") -> str:
        """Return a token of an agency, issued now."""
        return IssuerKey(key).token(agency, self.clock.now())

    def counted(self, outcome: str) -> float:
        """Return how many fetches are counted of an outcome."""
        found = metrics.REGISTRY.get_sample_value("flux_key_fetches_total", {"issuer": NASA, "outcome": outcome})
        return found or 0.0


def agencies(url: str, **changes: Any) -> list[DevelopmentAgency]:
    """Return NASA, whose issuer publishes at `url`, and LOC."""
    return [DevelopmentAgency("nasa", "NASA", jwks_url=url, **changes), DevelopmentAgency("loc", "Library")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The world before the first fetch."""
    with IdentityProvider() as provider:
        provider.publish(OLD)
        path = write_development_registry(tmp_path / "keys", agencies(provider.url, algorithms=("ES256", "EdDSA")))
        clock = FixedClock(NOW)
        source = RegistrySource(path, NOW)
        fetcher = Fetcher(verifying(), timeout_s=2)
        refresher = KeyRefresher(source, fetcher, clock, Pace(REFRESH_S, REFRESH_S), draw=lambda: 1.0)
        yield World(provider, tmp_path / "keys", source, clock, refresher, VerifiedTokens())


async def test_before_the_first_fetch_an_issuer_has_no_keys(world: World) -> None:
    """Its tokens are refused as stale, not as unknown; after the fetch they are good. Files need none."""
    token = world.token(OLD)
    assert world.code(token) is Code.KEYS_STALE

    await world.refresher.first()

    assert world.code(token) is None
    assert world.source.trust.keys.of(NASA).confirmed_at == NOW


async def test_a_start_without_the_identity_provider_is_no_crash(world: World) -> None:
    """No keys, until it answers."""
    world.provider.close()
    await world.refresher.first()

    assert world.code(world.token(OLD)) is Code.KEYS_STALE


async def test_a_revoked_key_is_refused_within_the_refresh_interval(world: World) -> None:
    """And so are its tokens that are remembered."""
    await world.fetch()
    token = world.token(OLD)
    assert world.code(token) is None
    assert len(world.memory) == 1

    world.provider.publish(NEW)
    await world.pass_time(REFRESH_S)

    assert world.code(token) is Code.KEY_UNKNOWN
    assert len(world.memory) == 0
    assert world.code(world.token(NEW)) is None


async def test_what_did_not_change_forgets_nothing(world: World) -> None:
    """The same bytes confirm the set, and its generation stays."""
    await world.fetch()
    generation = world.source.trust.keys.generation
    await world.pass_time(REFRESH_S)

    assert len(world.provider.asked) == 2
    assert world.source.trust.keys.generation == generation
    assert world.source.trust.keys.of(NASA).confirmed_at == NOW + timedelta(seconds=REFRESH_S)


BAD = {
    "no JSON": b"<html>",
    "no keys": b'{"keys":[]}',
    "a private key": json.dumps({"keys": [NEW.public_jwk() | {"d": "AAAA"}]}).encode(),
    "one good and one bad": json.dumps({"keys": [NEW.public_jwk(), {"kty": "oct", "kid": "k"}]}).encode(),
    "deeply nested": b"[" * 100_000,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_set_changes_nothing(world: World, bad: bytes) -> None:
    """The old keys go on, unconfirmed; the fault is counted. A good set ends it."""
    await world.fetch()
    trust, counted = world.source.trust, world.counted("refused")
    world.provider.answer = Answer(bad)
    world.clock.ticks += REFRESH_S
    await world.fetch()

    assert world.source.trust is trust
    assert world.code(world.token(OLD)) is None
    assert world.counted("refused") == counted + 1

    world.provider.publish(NEW)
    await world.pass_time(2)
    assert world.code(world.token(NEW)) is None


async def test_a_key_of_two_issuers_is_told_with_both_names(world: World) -> None:
    """Whoever publishes a key of LOC's file, under any name: once in the log, and in a gauge for as long as it is so."""
    (copied,) = json.loads((world.folder / "loc.jwks.json").read_bytes())["keys"]
    world.provider.answer = Answer(json.dumps({"keys": [OLD.public_jwk(), copied | {"kid": "mine"}]}).encode())
    await world.fetch()
    with capture_logs() as lines:
        await world.look(times=2)
    names = {"issuer": NASA, "other": LOC}

    assert [line for line in lines if line["log_level"] == "error"] == [
        {"event": "two issuers have the same key", "kid": "mine", "log_level": "error", **names}
    ]
    assert metrics.REGISTRY.get_sample_value("flux_keys_shared", names) == 1

    world.provider.publish(OLD)
    await world.pass_time(REFRESH_S)
    await world.look(times=2)
    assert metrics.REGISTRY.get_sample_value("flux_keys_shared", names) is None


async def test_the_identity_provider_down_for_an_hour_stops_nobody(world: World) -> None:
    """Known keys go on, and it is asked ever more rarely; beyond the stale limit nothing is accepted of it."""
    await world.fetch()
    counted = world.counted("failed")
    world.provider.close()
    await world.pass_time(3600)

    assert world.code(world.token(OLD)) is None
    assert 50 <= world.counted("failed") - counted <= 70  # 1, 2, 4 … 32 s, and then every minute

    token = world.token(OLD)
    world.clock.at = NOW + timedelta(hours=24)
    world.source.refresh(world.clock.now())
    late = world.token(OLD)
    assert (world.code(token), world.code(late)) == (Code.TOKEN_EXPIRED, None)
    world.clock.at += timedelta(seconds=1)
    assert world.code(late) is Code.KEYS_STALE
    assert world.source.trust.keys.of(LOC).confirmed_at == NOW + timedelta(hours=24)


async def test_invented_kids_do_not_make_us_fetch(world: World) -> None:
    """A flood of them causes no more fetches than the bucket allows, beside the ones that are due anyway."""
    await world.fetch()
    seconds = 50
    invented = world.token(generate_key())
    for _ in range(seconds):
        for _ in range(200):
            assert world.code(invented) is Code.KEY_UNKNOWN
        await world.pass_time(1)

    assert 1 + HURRIES_MAX <= len(world.provider.asked) <= 1 + HURRIES_MAX + seconds / HURRY_EVERY_S


async def test_a_new_key_is_known_soon(world: World) -> None:
    """The first token that names it is refused, and has it fetched."""
    await world.fetch()
    world.provider.publish(OLD, NEW)
    token = world.token(NEW)

    assert world.code(token) is Code.KEY_UNKNOWN
    assert await world.fetch() == 1
    assert world.code(token) is None


async def test_a_failing_identity_provider_is_never_hurried(world: World) -> None:
    """The back-off stands, whoever invents kids meanwhile."""
    await world.fetch()
    world.provider.answer = Answer(status=503)
    world.clock.ticks += REFRESH_S
    await world.fetch()
    asked = len(world.provider.asked)
    for _ in range(100):
        world.code(world.token(generate_key()))

    assert await world.fetch() == 0
    assert len(world.provider.asked) == asked


async def test_a_reload_keeps_what_was_fetched(world: World) -> None:
    """Of an issuer that publishes where it did; one that publishes elsewhere begins anew, and one in a file at once."""
    await world.fetch()
    again = agencies(world.provider.url, algorithms=("ES256", "EdDSA"))
    write_development_registry(world.folder, [*again, DevelopmentAgency("esa", "ESA")])
    assert world.source.refresh(NOW) is Refresh.RELOADED
    assert world.code(world.token(OLD)) is None
    assert await world.fetch() == 0

    elsewhere = agencies(world.provider.url + "?v=2", algorithms=("ES256", "EdDSA"))
    write_development_registry(world.folder, [*elsewhere, DevelopmentAgency("esa", "ESA")])
    world.source.refresh(NOW)
    assert world.code(world.token(OLD)) is Code.KEYS_STALE
    assert await world.fetch() == 1
    assert world.code(world.token(OLD)) is None


async def test_a_slow_identity_provider_delays_no_other(world: World) -> None:
    """Of one issuer one fetch is under way; the others' sets are taken meanwhile."""
    with IdentityProvider() as slow:
        slow.answer = Answer(b" " * 100, drip_s=0.2)
        both = [*agencies(world.provider.url), DevelopmentAgency("esa", "ESA", jwks_url=slow.url)]
        write_development_registry(world.folder, both)
        world.source.refresh(NOW)
        tasks = world.refresher.start_due()
        _, slower = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

        assert world.code(world.token(OLD)) is None
        assert (len(slower), await world.fetch()) == (1, 0)
        await asyncio.gather(*tasks)


async def test_the_loop_ends_with_its_fetches(world: World) -> None:
    """A stop in the middle of a fetch leaves none behind."""
    world.provider.answer = Answer(b" " * 1000, drip_s=0.1)
    pauses = iter([True, True, False])

    async def pause(_seconds: float) -> bool:
        await asyncio.sleep(0.02)
        return next(pauses)

    await world.refresher.run(pause)

    assert len(asyncio.all_tasks()) == 1
