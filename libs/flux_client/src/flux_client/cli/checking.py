"""The work of `flux-etl agencies check`: read a registry as a service does, and explain each fault with a next step."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flux_client.cli.exits import Ended, Exit
from flux_client.cli.output import say
from flux_common.auth import ConfigurationRefused, Fault, RegistrySource, Trust
from flux_common.auth.fetching import Fetcher, FetchFailed, verifying
from flux_common.auth.source import url_of
from flux_common.kernel.clock import SystemClock

_AFTER_FETCH = (
    "ingest goes on without a set that cannot be had or has a fault, and refuses its tokens (KEYS_STALE); sets that share "
    "a key it uses, and tells of it"
)


def check(path: Path, *, fetch: bool, ca_file: Path | None) -> list[dict[str, Any]]:
    """Return a row for each agency of a registry without faults; with `fetch`, its issuers' URLs are tried, too.

    Raises Ended (FAULTS) with every fault.
    """
    try:
        source = RegistrySource(path, SystemClock().now())
    except ConfigurationRefused as refused:
        raise faulty(path, refused.faults, "nothing of such a registry is used; correct them") from None
    if fetch and (faults := asyncio.run(_fetch_all(source, _fetcher(ca_file)))):
        raise faulty(path, faults, _AFTER_FETCH)
    for note in _idle_retirements(source.trust):
        say(f"note: {note}")
    return [_row(source.trust, name) for name in sorted(source.trust.registry.agencies)]


def _fetcher(ca_file: Path | None) -> Fetcher:
    try:
        return Fetcher(verifying(str(ca_file) if ca_file else None))
    except (OSError, ssl.SSLError):
        raise Ended(
            Exit.USAGE, f"{ca_file} holds no certificates", "name a PEM file with the authority's certificate"
        ) from None


async def _fetch_all(source: RegistrySource, fetcher: Fetcher) -> list[Fault]:
    """Try each URL, one after the other; what is fetched is taken as ingest would take it."""
    faults: list[Fault] = []
    for iss in sorted(source.trust.registry.issuers):
        url, asked_at = url_of(source.trust.registry, iss), SystemClock().now()
        if url is None:
            continue
        try:
            source.publish(iss, url, await fetcher.fetch(url), asked_at)
        except FetchFailed as failed:
            faults.append(Fault(f'issuers["{iss}"].jwks', f"{url}: {failed}", failed.next_step))
        except ConfigurationRefused as refused:
            faults.extend(refused.faults)
    return [*faults, *(one.fault() for one in source.trust.keys.shared)]


def faulty(path: Path, faults: Iterable[Fault], next_step: str) -> Ended:
    """Return the end of a command that found faults: each with its own next step, and one for all."""
    lines = [f"{path} has faults:"]
    for fault in faults:
        lines += [f"  {fault}", f"    next: {fault.next_step}"]
    return Ended(Exit.FAULTS, "\n".join(lines), next_step)


def _idle_retirements(trust: Trust) -> Iterable[str]:
    """Yield a line for each retired `kid` that its issuer's known keys do not have: gone, or never spelt so."""
    for iss, issuer in sorted(trust.registry.issuers.items()):
        keys = trust.keys.sets.get(iss)
        for kid in sorted(issuer.retired_at):
            if keys is not None and kid not in keys.keys:
                yield f'issuers["{iss}"].retired_at: there is no key "{kid}" (any more); is it spelt so?'


def _row(trust: Trust, name: str) -> dict[str, Any]:
    agency = trust.registry.agencies[name]
    issuers = sorted(agency.issuers)
    known = [trust.keys.sets[iss].keys for iss in issuers if iss in trust.keys.sets]
    return {
        "agency": agency.agency_id,
        "name": agency.name,
        "suspended": agency.suspended,
        "binding_required": agency.binding_required,
        "issuers": issuers,
        "keys": sum(map(len, known)) if len(known) == len(issuers) else "not fetched",
        "source_prefixes": list(agency.source_prefixes),
        "destination_prefixes": list(agency.destination_prefixes),
    }
