"""The flood brake: past an agency's refusals of a minute, a batch's refused records share one decision and one fact.

Whoever floods a requests topic with what must be refused would otherwise make Flux write three records, and rows, for
each of theirs. Only refusals are braked: an acceptance or a repetition is told by itself whatever else arrives.

The minute is that of LogAppendTime, so no process's clock matters; the count is the agency's, over all its lanes, in a
row that is raised under the agency's lock in the transaction that decides. So a batch that is read again before it was
applied meets the count that it met before, and one that was applied is never judged again: a lane that was set back finds
each refused record under its position, alone (`rejections`) or in a range (`floods`).

| the agency's minute | an acceptance, a repetition | a refusal | the next minute |
|---|---|---|---|
| calm: fewer refusals than the limit | told by itself | told by itself; one more | calm |
| flooded: as many, or more | told by itself | joins the batch's one decision; one more | calm |

An agency *presses* while its refusals and repetitions run ahead of what a minute's limit allows up to now, or past the limit.
The handler then works its lanes gently (handlers/pacing.py): it lets them rest, so that what must be refused comes in few
batches, and reads those with pauses, so that the others' work goes between. Only time depends on it, and what time decides:
a request may expire waiting.

A record counts in its own minute, however late it is read: a backlog is braked as it would have been when it arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from flux_ingest.domain.model import DeadLettered, Decision, Flooded, Rejected, Repeated

HEAD_START: Final = 0.05  # of a minute's limit: what may come at once and is no press


def minute_of(at: datetime) -> datetime:
    """Return the minute that a moment lies in."""
    return at.replace(second=0, microsecond=0)


def refusals(decisions: Sequence[Decision], minutes: Sequence[datetime]) -> Counter[datetime]:
    """Return how many of `decisions` refuse a record, by its minute."""
    pairs = zip(decisions, minutes, strict=True)
    return Counter(minute for decision, minute in pairs if isinstance(decision, Rejected | DeadLettered))


def repetitions(decisions: Sequence[Decision], minutes: Sequence[datetime]) -> Counter[datetime]:
    """Return how many of `decisions` say that a body was accepted before, by the record's minute."""
    pairs = zip(decisions, minutes, strict=True)
    return Counter(minute for decision, minute in pairs if isinstance(decision, Repeated))


def brake(
    decisions: Sequence[Decision], minutes: Sequence[datetime], before: Mapping[datetime, int], per_minute: int
) -> list[Decision]:
    """Return the decisions with each refusal `Flooded` whose minute had `per_minute` refusals already.

    `before` says how many each minute had when the batch came.
    """
    counted = Counter(before)
    braked: list[Decision] = []
    for decision, minute in zip(decisions, minutes, strict=True):
        if not isinstance(decision, Rejected | DeadLettered):
            braked.append(decision)
            continue
        counted[minute] += 1
        braked.append(Flooded(decision) if counted[minute] > per_minute else decision)
    return braked


def presses(counted: Mapping[datetime, int], per_minute: int, now: datetime) -> bool:
    """Tell whether what costs others comes faster than the limit; `counted` says how much of it each minute has."""
    return any(number > max(1.0, per_minute * _allowed(minute, now)) for minute, number in counted.items())


def _allowed(minute: datetime, now: datetime) -> float:
    """Return the share of a minute's limit that `now` allows: all of it when the minute is over."""
    return min(1.0, HEAD_START + max(0.0, (now - minute).total_seconds()) / 60)


def ranges(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending offsets as the fewest ranges, both ends included."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset - 1:
            found[-1] = (found[-1][0], offset)
        else:
            found.append((offset, offset))
    return found
