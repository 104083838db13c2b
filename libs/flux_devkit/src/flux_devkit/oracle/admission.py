"""I4, and ingest's half of I1: who asked, what was decided, and that each decision was told once.

No run without an accepted request, and no acceptance without the record it judged, a token on that record, one decision
event, one admission inward and one fact that names who asked. An id is occupied once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from flux_common.contracts import catalogue
from flux_common.kernel.ids import run_id
from flux_devkit.oracle.flooding import answers
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.rows import CommandRow, Placed, RequestRow
from flux_devkit.oracle.world import Book, Event, World, group, header, json_of, repeated

ACCEPTED = catalogue.RUN_ACCEPTED.ce_type
COMMAND_ACCEPTED = catalogue.COMMAND_ACCEPTED.ce_type
REFUSALS = frozenset({catalogue.RUN_REJECTED.ce_type, catalogue.COMMAND_REJECTED.ce_type})


def runs_were_asked_for(world: World) -> Iterator[Violation]:
    """I4: each run has the id, digest and agency of an accepted request."""
    requests = {(row.agency_id, row.request_id): row for row in world.tables.requests}
    for run in world.tables.runs:
        names = (run.agency_id, run.request_id, str(run.run_id))
        if run.run_id != run_id(run.agency_id, run.request_id):
            yield Violation("I4", "the run's id is not the one that agency and request id name", names)
        row = requests.get((run.agency_id, run.request_id))
        if "ingest" not in world.services:
            continue
        if row is None:
            yield Violation("I4", "a run without an accepted request", names)
        elif (row.run_id, row.sha256) != (run.run_id, run.request_sha256):
            yield Violation("I4", "the accepted request is about another run or body", names)


def ids_are_occupied_once(world: World) -> Iterator[Violation]:
    """I4: one accepted request, one run and one acceptance event for each (agency, request_id); the same of commands."""
    accepted = [event for event in world.on(catalogue.DECISIONS) if event.type == ACCEPTED]
    for what, rows, key in (
        ("requests were accepted", world.tables.requests, lambda row: (row.agency_id, row.request_id)),
        ("runs were made", world.tables.runs, lambda row: (row.agency_id, row.request_id)),
        ("acceptances were told", accepted, lambda event: (event.get("agency_id"), event.get("request_id"))),
        ("commands were accepted", world.tables.commands, lambda row: (row.agency_id, row.command_id)),
    ):
        for name, found in repeated(rows, key):
            yield Violation("I4", f"{len(found)} {what} for one id", tuple(map(str, name)))


def acceptances_rest_on_records(world: World) -> Iterator[Violation]:
    """I4: an accepted request or command is the record at its position, with a token of its agency."""
    rows: list[RequestRow | CommandRow] = [*world.tables.requests, *world.tables.commands]
    for row in rows if "ingest" in world.services else ():
        record = world.record(row.position)
        if record is None and world.readable(row.position):
            yield Violation("I4", "an acceptance of a record that is not there", _names(row))
        if record is None:
            continue
        if sha256(record.value or b"").digest() != row.sha256:
            yield Violation("I4", "the accepted digest is not the record's", _names(row))
        body = json_of(record.value) or {}
        if body.get("request_id") != row.request_id:
            yield Violation("I4", "the record names another request id", _names(row))
        if _claims(header(record, "authorization")).get("agency") != row.agency_id:
            yield Violation("I5", "the token claims another agency, or there is none", _names(row))


def acceptances_are_told_and_passed_on(world: World) -> Iterator[Violation]:
    """I4: each accepted request has one acceptance, one admission inward and one fact that says who asked."""
    accepted = _by_id(world, catalogue.DECISIONS, ACCEPTED)
    admitted = _by_id(world, catalogue.RUNS, catalogue.RUN_ADMITTED.ce_type)
    facts = group(world.on(catalogue.AUDIT), lambda event: (event.get("refs") or {}).get("event_id"))
    for row in world.tables.requests:
        key, names = (row.agency_id, row.request_id), _names(row)
        told, inward = accepted.get(key, []), admitted.get(key, [])
        if len(told) != 1 and not world.expired(catalogue.DECISIONS.of(row.agency_id)):
            yield Violation("I4", f"{len(told)} acceptances were told", names)
        if len(inward) != 1 and not world.expired(catalogue.RUNS.name):
            yield Violation("I4", f"{len(inward)} admissions went inward", names)
        for event in told:
            yield from _told_rightly(row, event)
            if not world.expired(catalogue.AUDIT.name):
                yield from _attested(world, event, facts.get(event.id, []))
    for key in (accepted.keys() | admitted.keys()) - {(row.agency_id, row.request_id) for row in world.tables.requests}:
        if "ingest" in world.services:
            yield Violation("I4", "an acceptance or admission of nothing that was accepted", tuple(map(str, key)))


def _told_rightly(row: RequestRow, event: Event) -> Iterator[Violation]:
    said = (event.get("run_id"), event.get("request_sha256"), event.of_record)
    if said != (str(row.run_id), row.sha256.hex(), row.position):
        yield Violation("I4", "the acceptance says otherwise than the request's row", (*_names(row), event.name))


def _attested(world: World, event: Event, facts: list[Event]) -> Iterator[Violation]:
    place = event.of_record
    record = world.record(place) if place is not None else None
    actors = [fact.get("actor") or {} for fact in facts]
    if len(facts) != 1 or not actors[0].get("kid"):
        yield Violation("I4", "an acceptance without the one fact of a verified token", (event.name,))
    elif record is not None:
        claims = _claims(header(record, "authorization"))
        if any(actors[0].get(name) != claims.get(name) for name in ("iss", "sub", "role")):
            yield Violation("I4", "the fact names another sender than the token", (event.name, facts[0].name))


def requests_are_answered_once(world: World) -> Iterator[Violation]:
    """I1: each judged request was answered by one decision or dead letter; each decision judged a request."""
    told = answers(world)
    letters = {row.position for row in world.tables.dead_letters}
    known = {row.position for row in (*world.tables.requests, *world.tables.commands, *world.tables.rejections)}
    known |= {position for row in world.tables.floods for position in row.positions()}
    for book in _request_books(world):
        for record, fate in book.judged():
            at, events = record.position, told.get(record.position, [])
            if fate == "effect" and at not in known:
                yield Violation("I1", "a decided request left no row", (str(at),))
            if fate in ("effect", "duplicate") and at not in letters and not events and not _told_gone(world, book):
                yield Violation("I1", "a judged request was not answered", (str(at),))
            if len(events) > 1:
                yield Violation("I1", "a request was answered twice", (str(at), *(event.id for event in events)))
    for place, events in told.items():
        book_of = world.book_of.get(place.tp) if place is not None else None
        if book_of is None or place is None or book_of.fate(place.offset) not in ("effect", "duplicate"):
            yield Violation("I1", "an answer to nothing that was judged", (str(place), events[0].name))


def decisions_have_their_rows(world: World) -> Iterator[Violation]:
    """I1: each row of ingest comes from an effect of its agency's lane, and each refusal is told as it is kept."""
    told = {event.of_record: event for event in world.on(catalogue.DECISIONS)}
    rejected = {row.position: row for row in world.tables.rejections}
    for row in (*world.tables.requests, *world.tables.commands, *rejected.values()):
        book = world.book_of.get(row.position.tp)
        fate = book.fate(row.position.offset) if book is not None else None
        if fate != "effect":
            yield Violation("I1", f"a row of a record that was booked as {fate or 'nothing yet'}", _names(row))
    for place, event in told.items():
        kept = rejected.get(place) if place is not None else None
        if event.type in REFUSALS and (kept is None or kept.code != event.get("code")):
            yield Violation("I1", "a refusal was told that is not kept so", (event.name,))
        if event.type not in REFUSALS and kept is not None:
            yield Violation("I1", "a refusal was told as something else", (event.name,))


def commands_are_passed_on(world: World) -> Iterator[Violation]:
    """I1: each accepted command was told as such and admitted inward, once."""
    told = group(
        (
            event
            for event in world.on(catalogue.DECISIONS)
            if event.type == COMMAND_ACCEPTED and not event.get("repeated")
        ),
        lambda event: (event.get("agency_id"), event.get("command_id")),
    )
    admitted = [event for event in world.on(catalogue.RUNS) if event.type == catalogue.COMMAND_ADMITTED.ce_type]
    inward = group(admitted, lambda event: (event.get("agency_id"), event.get("command_id")))
    for row in world.tables.commands:
        for what, found, topic in (
            ("told", told, catalogue.DECISIONS.of(row.agency_id)),
            ("passed on", inward, catalogue.RUNS.name),
        ):
            number = len(found.get((row.agency_id, row.command_id), []))
            if number != 1 and not world.expired(topic):
                yield Violation("I1", f"an accepted command was {what} {number} times", _names(row))


def _by_id(world: World, spec: catalogue.TopicSpec, type_: str) -> dict[Any, list[Event]]:
    events = (event for event in world.on(spec) if event.type == type_)
    return group(events, lambda event: (event.get("agency_id"), event.get("request_id")))


def _request_books(world: World) -> list[Book]:
    topics = {catalogue.REQUESTS.of(agency) for agency in world.agencies}
    return [book for book in world.books if book.lane.topic in topics]


def _told_gone(world: World, book: Book) -> bool:
    agencies = (agency for agency in world.agencies if catalogue.REQUESTS.of(agency) == book.lane.topic)
    return any(world.expired(catalogue.DECISIONS.of(agency)) for agency in agencies)


def _names(row: Placed) -> tuple[str, ...]:
    name = row.command_id if isinstance(row, CommandRow) else getattr(row, "request_id", None)
    return (row.agency_id, str(name), str(row.position))


def _claims(authorization: str) -> dict[str, Any]:
    """Return a token's claims, unverified: who verified them is on trial here, not the token."""
    _, _, token = authorization.partition(" ")
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json_of(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except binascii.Error:
        return {}
    return claims if isinstance(claims, dict) else {}


CHECKS = (
    runs_were_asked_for,
    ids_are_occupied_once,
    acceptances_rest_on_records,
    acceptances_are_told_and_passed_on,
    requests_are_answered_once,
    decisions_have_their_rows,
    commands_are_passed_on,
)
