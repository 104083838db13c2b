"""The life of a run and of an item, as tables; SQL CHECKs hold the same legality.

A run's terminal states speak exactly once for each `run_attempt`. Every move of an item back to PENDING raises its term, so
that whatever the old holder still says is recognised as old.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """Where a run is."""

    ADMITTED = "ADMITTED"
    PLANNING = "PLANNING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FINALIZING = "FINALIZING"
    COMPLETED = "COMPLETED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class ItemState(StrEnum):
    """Where a partition or a step is."""

    PENDING = "PENDING"
    DISPATCHED = "DISPATCHED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


_R = RunState
_LEAVE: Final = {_R.CANCELLING, _R.FAILED}

RUN_MOVES: Final[dict[RunState, frozenset[RunState]]] = {
    _R.ADMITTED: frozenset({_R.PLANNING} | _LEAVE),
    _R.PLANNING: frozenset({_R.RUNNING, _R.PAUSED} | _LEAVE),
    _R.RUNNING: frozenset({_R.PAUSED, _R.FINALIZING} | _LEAVE),
    _R.PAUSED: frozenset({_R.RUNNING} | _LEAVE),
    _R.FINALIZING: frozenset({_R.COMPLETED} | _LEAVE),
    _R.CANCELLING: frozenset({_R.CANCELLED}),
    # Only *retry* leads on from FAILED, with run_attempt + 1, to where the run stood.
    _R.FAILED: frozenset({_R.PLANNING, _R.RUNNING, _R.FINALIZING}),
    _R.COMPLETED: frozenset(),
    _R.CANCELLED: frozenset(),
}

_I = ItemState
ITEM_MOVES: Final[dict[ItemState, frozenset[ItemState]]] = {
    _I.PENDING: frozenset({_I.DISPATCHED, _I.FAILED}),
    _I.DISPATCHED: frozenset({_I.RUNNING, _I.FINISHED, _I.FAILED, _I.PENDING}),
    _I.RUNNING: frozenset({_I.FINISHED, _I.FAILED, _I.PENDING}),
    _I.FINISHED: frozenset(),
    _I.FAILED: frozenset({_I.PENDING}),
}

TERMINAL: Final = frozenset({_R.COMPLETED, _R.CANCELLED, _R.FAILED})
IN_HAND: Final = frozenset({_I.DISPATCHED, _I.RUNNING})


def may_move(old: RunState, new: RunState) -> bool:
    """Tell whether a run may go from `old` to `new`."""
    return new in RUN_MOVES[old]


def item_may_move(old: ItemState, new: ItemState) -> bool:
    """Tell whether an item may go from `old` to `new`."""
    return new in ITEM_MOVES[old]
