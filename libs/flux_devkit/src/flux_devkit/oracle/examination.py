"""All checks over one gathered world, and the figures that say how much there was to look at."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from flux_client.development import EXAMPLE_AGENCIES, DevelopmentAgency
from flux_client.keys import load_key, private_key_path
from flux_common.contracts import catalogue
from flux_devkit.errors import DevkitError
from flux_devkit.home import Home
from flux_devkit.installation import TREE_HEAD_KEY, Installation
from flux_devkit.oracle import (
    admission,
    chains,
    completion,
    effects,
    endings,
    files,
    flooding,
    ledger,
    publication,
    sealing,
    tenancy,
)
from flux_devkit.oracle.gather import Target, gather, still
from flux_devkit.oracle.heads import PublicKey
from flux_devkit.oracle.report import Report, Violation
from flux_devkit.oracle.world import SERVICES, World
from flux_devkit.servers import Servers

WAITED_FOR: Final = frozenset({"OUTBOX", "SETTLED"})
WAIT_SECONDS: Final = 1.0

Check = Callable[[World], Iterator[Violation]]
ALWAYS: Sequence[Check] = (
    *ledger.CHECKS,
    *effects.CHECKS,
    *chains.CHECKS,
    *admission.CHECKS,
    *flooding.CHECKS,
    *tenancy.CHECKS,
    *endings.CHECKS,
    *sealing.CHECKS,
    *completion.CHECKS,
    *publication.CHECKS,
)


@dataclass(frozen=True, slots=True)
class Options:
    """What else may be asked of the installation.

    `quiescent`: nothing waits to be published. `settled`: everything that was asked has been judged, and signed. Both are
    waited for, and that nothing more comes for a second, up to `patience_s` seconds. `files`: look into destinations
    that are `file://` URIs. `services`: who took part. `audit_keys`: public keys of the audit service; without any,
    signatures are not verified.
    """

    quiescent: bool = False
    settled: bool = False
    files: bool = True
    services: frozenset[str] = SERVICES
    audit_keys: tuple[PublicKey, ...] = ()
    patience_s: float = 30.0


def examine(target: Target, **options: Any) -> Report:
    """Gather an installation and judge it; blocks. `options` are those of `Options`; an Installation brings its keys.

    May be called inside a running event loop, which then waits.

    Raises:
        DevkitError: the installation would not stand still, or Kafka refused.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, examine_async(target, **options)).result()


async def examine_async(target: Target, **options: Any) -> Report:
    """Examine from a coroutine. Raises DevkitError as `examine`."""
    asked = Options(**{"audit_keys": audit_keys_of(target)} | options)
    waits = asked.quiescent or asked.settled
    deadline = time.monotonic() + asked.patience_s
    before: World | None = None
    while True:
        world = await gather(target, services=asked.services, audit_keys=asked.audit_keys)
        report = await asyncio.to_thread(judge, world, asked)
        at_rest = not report.broken & WAITED_FOR and before is not None and still(before, world)
        if not waits or at_rest or time.monotonic() > deadline:
            return report
        before = world
        await asyncio.sleep(WAIT_SECONDS)


def audit_keys_of(target: Target) -> tuple[PublicKey, ...]:
    """Return the public key of an Installation's audit service, where it has been made."""
    if not isinstance(target, Installation) or not (path := private_key_path(target.keys, TREE_HEAD_KEY)).exists():
        return ()
    return (load_key(path).private_key.public_key(),)


def installation_at(home: Home, database: str, topic_prefix: str, agencies: Sequence[str]) -> Installation:
    """Return the installation on the servers that are given in the environment, or else up; without agencies, the examples.

    Raises:
        DevkitError: no server is given or up.
    """
    known = {**home.read_dev_env(), **os.environ}
    if not {"FLUX_KAFKA_BOOTSTRAP", "FLUX_POSTGRES_DSN"} <= known.keys():
        raise DevkitError("no servers: call flux-dev up, or set FLUX_KAFKA_BOOTSTRAP and FLUX_POSTGRES_DSN")
    servers = Servers(known["FLUX_KAFKA_BOOTSTRAP"], known["FLUX_POSTGRES_DSN"])
    named = tuple(DevelopmentAgency(agency, agency) for agency in agencies) or EXAMPLE_AGENCIES
    return Installation(servers, home.keys, home.root, database, topic_prefix, named)


def judge(world: World, options: Options | None = None) -> Report:
    """Return what is wrong with a gathered world."""
    options = options or Options()
    checks = [*ALWAYS]
    checks += files.CHECKS if options.files else ()
    checks += publication.WHEN_QUIESCENT if options.quiescent else ()
    checks += publication.WHEN_SETTLED if options.settled else ()
    found = {violation for check in checks for violation in _carried_out(check, world)}
    return Report(tuple(sorted(found)), figures(world))


def _carried_out(check: Check, world: World) -> Iterator[Violation]:
    """Yield what a check finds. Values that no honest service writes may stop it: then that is what it found."""
    try:
        yield from check(world)
    except (LookupError, TypeError, ValueError, AttributeError) as problem:
        invariant, _, _ = (check.__doc__ or "").partition(":")
        what = f"{check.__name__} met what it cannot read: {type(problem).__name__} {problem}"
        yield Violation(invariant.strip(), what)


def figures(world: World) -> dict[str, int]:
    """Return how much there was to look at."""
    tables = world.tables
    states = Counter(run.state for run in tables.runs)
    return {
        "agencies": len(world.agencies),
        "lanes": len(tables.lanes),
        "records": sum(len(records) for records in world.records.values()),
        "effects": sum(row.effects for row in tables.ledger),
        "duplicates": sum(row.duplicates for row in tables.ledger),
        "fenced": sum(row.fenced for row in tables.ledger),
        "dead letters": sum(row.dead_letters for row in tables.ledger),
        "controls": sum(row.controls for row in tables.ledger),
        "requests accepted": len(tables.requests),
        "requests rejected": len(tables.rejections),
        "requests flooded": sum(row.refused for row in tables.floods),
        "runs": len(tables.runs),
        **{f"runs {state}": number for state, number in sorted(states.items())},
        "slices": len(tables.hashes),
        "work dispatched": len(world.on(catalogue.WORK)),
        "leaves": len(tables.leaves),
        "receipts": len(world.on(catalogue.RECEIPTS)),
        "waiting in outboxes": len(tables.outbox),
    }
