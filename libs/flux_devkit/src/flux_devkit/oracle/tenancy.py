"""I5: the agency of every row, fact and event is that of its topic, its run and its key.

A run's id is derived from its agency (docs/protocol.md), so an agency that was exchanged anywhere shows against the id.
"""

from __future__ import annotations

from collections.abc import Iterator

from flux_common.contracts import catalogue
from flux_common.contracts.catalogue import TopicSpec
from flux_common.kernel.ids import SYSTEM_AGENCY, fact_partition, shard_of
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.world import PUBLISHED, Event, World, json_of, uuid_of

TO_AGENCIES = tuple(spec for spec in PUBLISHED if spec.per_agency)
OF_RUNS = (catalogue.RUNS, catalogue.WORK, catalogue.FENCES)


def agency_topics_hold_their_own(world: World) -> Iterator[Violation]:
    """I5: every event on a topic of one agency names that agency."""
    for spec in TO_AGENCIES:
        for event in world.on(spec):
            agency = agency_of(event.topic, spec)
            if event.get("agency_id") != agency:
                what = f"an event of {event.get('agency_id')} on a topic of {agency}"
                yield Violation("I5", what, (event.name, event.id))


def agency_of(topic: str, spec: TopicSpec) -> str:
    """Return the agency whose topic it is."""
    before, _, after = spec.name.partition("<agency>")
    return topic.removeprefix(before).removesuffix(after)


def inward_events_name_their_runs_agency(world: World) -> Iterator[Violation]:
    """I5: admissions, work, fences and completions name the agency that their run has."""
    owners = {run_id: agency for agency, run_id in world.runs}
    for spec in (*OF_RUNS, catalogue.COMPLETIONS):
        for event in world.on(spec):
            owner = owners.get(run) if (run := uuid_of(event.get("run_id"))) is not None else None
            if owner is not None and event.get("agency_id") != owner:
                what = f"an event of {event.get('agency_id')} about a run of {owner}"
                yield Violation("I5", what, (event.name, event.id))


def rows_name_their_runs_agency(world: World) -> Iterator[Violation]:
    """I5: items, history, hashes and agenda belong to a run of the same agency."""
    owners = {run_id: agency for agency, run_id in world.runs}
    tables = world.tables
    for what, rows in (
        ("an item", tables.items),
        ("a line of the history", tables.history),
        ("a hash row", tables.hashes),
        ("a line of the agenda", tables.agenda),
    ):
        for row in rows:
            if (row.agency_id, row.run_id) not in world.runs:
                owner = owners.get(row.run_id, "nobody")
                yield Violation("I5", f"{what} of {row.agency_id} about a run of {owner}", (str(row.run_id),))


def applied_reports_name_their_rows_agency(world: World) -> Iterator[Violation]:
    """I5: what was applied from the progress topic names the agency of its run."""
    owners = {run_id: agency for agency, run_id in world.runs}
    for book in world.books:
        if book.lane.topic != catalogue.PROGRESS.name:
            continue
        for record in book.effects():
            body = json_of(record.value) or {}
            run_id = uuid_of(body.get("run_id"))
            owner = owners.get(run_id) if run_id is not None else None
            if owner != body.get("agency_id"):
                what = f"a report of {body.get('agency_id')} was applied to a run of {owner}"
                yield Violation("I5", what, (str(record.position),))


def intake_rows_name_their_topics_agency(world: World) -> Iterator[Violation]:
    """I5: what ingest keeps of a record, and every dead letter of one, is kept for the topic's agency."""
    agencies = {catalogue.REQUESTS.of(agency): agency for agency in world.agencies}
    tables = world.tables
    for row in (
        *tables.requests,
        *tables.commands,
        *tables.rejections,
        *tables.floods,
        *tables.uses,
        *tables.dead_letters,
    ):
        owner = agencies.get(row.topic, row.agency_id)
        if row.agency_id != owner:
            yield Violation("I5", f"a row of {row.agency_id} about a record of {owner}", (str(row.position),))


def facts_are_keyed_by_their_agency(world: World) -> Iterator[Violation]:
    """I5: a fact's key, body and Kafka partition are of one agency, and of the agency of the run it refers to."""
    owners = {str(run_id): agency for agency, run_id in world.runs}
    for fact in world.on(catalogue.AUDIT):
        agency = fact.get("agency_id")
        owner = owners.get(str((fact.get("refs") or {}).get("run_id")), agency)
        if not (agency == fact.key == owner):
            what = f"a fact of {agency} under the key {fact.key} about a run of {owner}"
            yield Violation("I5", what, (fact.name, fact.id))
        elif not _placed_rightly(fact, str(agency)):
            yield Violation("I5", f"a fact of {agency} on a Kafka partition of others", (fact.name, fact.id))


def _placed_rightly(fact: Event, agency: str) -> bool:
    if fact.position is None:
        return True
    return fact.position.tp.kafka_partition == fact_partition(agency, catalogue.AUDIT.kafka_partitions)


def leaves_name_their_logs_agency(world: World) -> Iterator[Violation]:
    """I5: a sealed entry names the agency of its log."""
    for leaf in world.tables.leaves:
        entry = json_of(leaf.entry) or {}
        if entry.get("agency_id") != leaf.agency_id:
            what = f"an entry of {entry.get('agency_id')} in the log of {leaf.agency_id}"
            yield Violation("I5", what, (f"{leaf.agency_id}#{leaf.seq}",))


def outbox_rows_are_their_agencys(world: World) -> Iterator[Violation]:
    """I5: a waiting event leaves under the agency that its body and topic name, through that agency's shard."""
    topics = {spec.of(agency): agency for spec in TO_AGENCIES for agency in world.agencies}
    for row in world.tables.outbox:
        body = json_of(row.value) or {}
        owner = topics.get(row.topic, row.agency_id)
        agrees = row.agency_id == owner == body.get("agency_id", row.agency_id) and row.shard == shard_of(row.agency_id)
        if not agrees:
            yield Violation("I5", f"an outbox row of {row.agency_id} with an event of {owner}", (str(row.event_id),))


def strangers_have_no_rows(world: World) -> Iterator[Violation]:
    """I5: no row is kept for an agency that is not registered."""
    tables = world.tables
    found = {row.agency_id for row in (*tables.runs, *tables.leaves, *tables.heads, *tables.nodes)}  # type: ignore[attr-defined]
    found |= {row.agency_id for row in (*tables.requests, *tables.commands, *tables.rejections, *tables.dead_letters)}
    found |= {row.agency_id for row in tables.floods}
    for agency in sorted(found - {*world.agencies, SYSTEM_AGENCY}):
        yield Violation("I5", "rows of an agency that is not registered", (agency,))


CHECKS = (
    agency_topics_hold_their_own,
    inward_events_name_their_runs_agency,
    rows_name_their_runs_agency,
    applied_reports_name_their_rows_agency,
    intake_rows_name_their_topics_agency,
    facts_are_keyed_by_their_agency,
    leaves_name_their_logs_agency,
    outbox_rows_are_their_agencys,
    strangers_have_no_rows,
)
