"""The flood brake's half of I1: what one decision answers, it answers rightly and alone.

Each kept flood was told in one decision of the same offsets, with one fact, and each such decision is kept. That every
offset has one answer and no more is admission.py's, which is given the answers here offset by offset.
"""

from __future__ import annotations

from collections.abc import Iterator

from flux_common.contracts import catalogue
from flux_common.kernel.codes import Code
from flux_common.kernel.positions import Position
from flux_devkit.oracle.report import Violation
from flux_devkit.oracle.world import Event, World, group

FLOODED = catalogue.INTAKE_FLOODED.ce_type


def answers(world: World) -> dict[Position | None, list[Event]]:
    """Return the decisions by the record that they answer; one about a flood stands under each of its offsets."""
    told = group((one for one in world.on(catalogue.DECISIONS) if one.type != FLOODED), lambda one: one.of_record)
    for event in floods_told(world):
        for position in answered(event):
            told.setdefault(position, []).append(event)
    return told


def floods_told(world: World) -> list[Event]:
    """Return the decisions about floods."""
    return [event for event in world.on(catalogue.DECISIONS) if event.type == FLOODED]


def answered(event: Event) -> list[Position]:
    """Return the positions that a decision about a flood answers."""
    first = event.of_record
    if first is None:
        return []
    ranges = [(one["first"], one["last"]) for one in event.get("offsets") or ()]
    return [first.tp.at(offset) for begin, end in ranges for offset in range(begin, end + 1)]


def floods_are_told_as_kept(world: World) -> Iterator[Violation]:
    """I1: a flood is kept and told once each, with the same offsets, as many as it counts."""
    told = group(floods_told(world), lambda event: tuple(answered(event)))
    kept = group(world.tables.floods, lambda row: tuple(row.positions()))
    for positions in told.keys() | kept.keys():
        rows, events = kept.get(positions, []), told.get(positions, [])
        names = (str(positions[0]) if positions else "no offset", *(event.name for event in events))
        gone = any(world.expired(catalogue.DECISIONS.of(row.agency_id)) for row in rows)
        if len(rows) != 1 or (len(events) != 1 and not gone):
            yield Violation("I1", f"a flood is kept {len(rows)} times and told {len(events)} times", names)
        counts = {row.refused for row in rows} | {event.get("count") for event in events}
        counts |= {sum((event.get("codes") or {}).values()) for event in events}
        if counts != {len(positions)}:
            yield Violation("I1", f"a flood of {len(positions)} records counts {sorted(counts)}", names)
        if any(event.get("code") != Code.INTAKE_FLOODED for event in events):
            yield Violation("I1", "a flood was told under another code", names)


def flooded_records_are_effects(world: World) -> Iterator[Violation]:
    """I1: each offset of a kept flood was booked as an effect."""
    for row in world.tables.floods:
        book = world.book_of.get(row.position.tp)
        fates = {book.fate(one.offset) if book is not None else None for one in row.positions()}
        for fate in sorted(str(fate) for fate in fates - {"effect"}):
            yield Violation("I1", f"a flooded record was booked as {fate}", (row.agency_id, str(row.position)))


def floods_are_attested(world: World) -> Iterator[Violation]:
    """I7: one fact attests each decision about a flood."""
    facts = group(world.on(catalogue.AUDIT), lambda fact: (fact.get("refs") or {}).get("event_id"))
    for event in floods_told(world) if not world.expired(catalogue.AUDIT.name) else ():
        number = len(facts.get(event.id, []))
        if number != 1:
            yield Violation("I7", f"{number} facts attest a flood", (event.name, event.id))


CHECKS = (floods_are_told_as_kept, flooded_records_are_effects, floods_are_attested)
