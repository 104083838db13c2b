"""Everybody can do what the code says, and nothing else: tried on a real broker, with its authorizer on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from flux_common.contracts.access import Grant, Operation, Pattern, Principal, Resource
from flux_common.contracts.catalogue import GROUPS, TOPICS, relay_ids, topic_names
from flux_common.kafka.logins import Difference, Rule, apply, difference
from flux_common.kafka.producing import new_producer
from flux_common.settings import KafkaSettings
from flux_devkit import trying

EVERYWHERE = trying.Places(
    topics=[name for spec in TOPICS for name in topic_names(spec, ["esa", "nasa"])],
    groups=["flux.nasa.watchers", "flux.esa.watchers", "flux.nasa2.watchers", *(group.name for group in GROUPS)],
    transactional_ids=[f"{relay_ids(service)}0" for service in ("ingest", "checkpoint", "audit")],
)
NASAS = trying.Places(["flux.nasa.run.decisions.v1", "flux.esa.run.decisions.v1"], [], [])
STRANGER = "flux.nobody"  # a login to which nothing is granted
Login = Callable[[str], Awaitable[KafkaSettings]]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture(scope="module")
def records(admin: KafkaSettings) -> None:
    """Put one record into each topic."""
    asyncio.run(_write(admin))


async def _write(admin: KafkaSettings) -> None:
    producer = new_producer(admin)
    await producer.start()
    for name in EVERYWHERE.topics:
        await producer.send_and_wait(admin.topic(name), b"v", key=b"k", partition=0)
    await producer.stop()


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("name", ["flux.nasa", "flux.esa", STRANGER])
async def test_an_agency_can_do_what_the_code_says_and_nothing_else(
    name: str, everybody: tuple[Principal, ...], login: Login
) -> None:
    """Each topic of the catalogue, groups of all kinds, the relays' transactions, and what takes a right over the cluster:
    ACLs, passwords, quotas and the brokers' own settings. A stranger can do nothing at all.
    """
    grants = {one.name: one.grants for one in everybody}
    found = await trying.can_do(await login(name), EVERYWHERE)

    assert found == trying.said(grants.get(name, ()), EVERYWHERE)


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize(
    "name", ["flux-ingest", "flux-transform", "flux-checkpoint", "flux-audit", "flux-topics", "flux-observer"]
)
async def test_a_service_can_do_what_the_code_says_and_nothing_else(
    name: str, everybody: tuple[Principal, ...], login: Login
) -> None:
    """A service that is taken over can write no topic of another's, and delete none."""
    grants = {one.name: one.grants for one in everybody}

    assert await trying.can_do(await login(name), EVERYWHERE) == trying.said(grants[name], EVERYWHERE)


@pytest.mark.usefixtures("records")
async def test_one_grant_too_many_and_one_missing_are_seen(
    admin: KafkaSettings, everybody: tuple[Principal, ...], login: Login, until: Until
) -> None:
    """The matrix is red with either, and the comparison names both; applying adds, and pruning removes."""
    said = trying.said(next(one.grants for one in everybody if one.name == "flux.nasa"), NASAS)
    mine, others = NASAS.topics
    gone, extra = (Rule("flux.nasa", "TOPIC", "LITERAL", admin.topic(name), "READ") for name in (mine, others))

    async def red() -> bool:
        found = await trying.can_do(await login("flux.nasa"), NASAS)
        return ({can.name for can in said - found}, {can.name for can in found - said}) == ({mine}, {others})

    async def green() -> bool:
        return await trying.can_do(await login("flux.nasa"), NASAS) == said

    async with mended(admin, everybody):
        await apply(admin, Difference([extra], [gone], {}, []), prune=True)
        await until(red)
        found = await difference(admin, everybody)
        assert (found.missing, found.unknown) == ([gone], [extra])
    await until(green)
    found = await difference(admin, everybody)
    assert (found.missing, found.unknown, found.quotas) == ([], [], {})


@pytest.mark.parametrize("right", sorted(set(trying.GOVERNING.values())))
async def test_a_right_over_the_cluster_is_seen(
    right: Operation, admin: KafkaSettings, everybody: tuple[Principal, ...], login: Login, until: Until
) -> None:
    """With one, an agency can do all that it is for, each way; the comparison names it, and pruning takes it away."""
    extra = Rule("flux.nasa", "BROKER", "LITERAL", trying.CLUSTER, right.name)
    grant = Grant(Resource.CLUSTER, trying.CLUSTER, Pattern.LITERAL, (right,))
    acts = {act for act, does in trying.GOVERNING.items() if grant.covers(Resource.CLUSTER, trying.CLUSTER, does)}

    async def can(wanted: set[str]) -> bool:
        return await trying.governs(await login("flux.nasa")) == wanted

    assert await can(set())
    async with mended(admin, everybody):
        await apply(admin, Difference([extra], [], {}, []))
        await until(partial(can, acts))
        assert (await difference(admin, everybody)).unknown == [extra]
    await until(partial(can, set()))


@asynccontextmanager
async def mended(admin: KafkaSettings, everybody: tuple[Principal, ...]) -> AsyncIterator[None]:
    """Bring everything back in the end, whatever happens."""
    try:
        yield
    finally:
        await apply(admin, await difference(admin, everybody), prune=True)
