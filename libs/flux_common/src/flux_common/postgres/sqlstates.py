"""What each failure of PostgreSQL means to the loop; the only place that knows SQLSTATEs (semantics.md, SQLSTATE table).

| state | meaning |
|---|---|
| 22, 23502, 23514 | the record is refused: `RecordRefused`, the loop bisects and dead-letters |
| 40, 55P03, 23505, 23503 | a race: `Contended`, the batch is tried again |
| 08, 53, 57, 58 and lost connections | `Unavailable` |
| 42501 | `IsolationViolation`: the process stops |
| anything else | raised as it is: the process stops |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import (
    Classification,
    FluxError,
    InvalidMessage,
    InvariantBroken,
    IsolationViolation,
    Unavailable,
)


class RecordRefused(InvalidMessage):
    """The database's constraints refuse the values of a record."""


class Contended(Unavailable):
    """Another transaction was in the way; the same batch may succeed at once."""


class KeyContended(Contended):
    """A unique or foreign key was in the way: a race, unless it happens again and again."""


_REFUSED = ("22", "23502", "23514")
_CONTENDED = ("40", "55P03")
_KEYS = ("23505", "23503")
_OUTAGE = ("08", "53", "57", "58", "25P03")


def meaning(problem: Exception) -> FluxError | None:
    """Return the FluxError that `problem` stands for; None where it is unknown and must stop the process."""
    if isinstance(problem, asyncpg.PostgresError):
        return _of_state(problem.sqlstate or "", problem)
    if isinstance(problem, (OSError, TimeoutError, asyncpg.InterfaceError)):
        return _outage(type(problem).__name__)
    return None


def _of_state(state: str, problem: asyncpg.PostgresError) -> FluxError | None:
    where = {"sqlstate": state, "constraint": getattr(problem, "constraint_name", None)}
    if state == "42501":
        return IsolationViolation(Code.ISOLATION_VIOLATION, "The database refused access").with_context(**where)
    if state.startswith(_REFUSED):
        return RecordRefused(Code.RECORD_REFUSED, f"The database refused the values ({state})").with_context(**where)
    if state.startswith(_KEYS):
        return KeyContended(Code.DATABASE_UNAVAILABLE, f"A key is taken ({state})", retry_in=0.05).with_context(**where)
    if state.startswith(_CONTENDED):
        return Contended(Code.DATABASE_UNAVAILABLE, f"A lock is taken ({state})", retry_in=0.05).with_context(**where)
    return _outage(state) if state.startswith(_OUTAGE) else None


def _outage(what: str) -> Unavailable:
    return Unavailable(
        Code.DATABASE_UNAVAILABLE,
        f"PostgreSQL does not answer ({what})",
        retry_in=1.0,
        classification=Classification.STORAGE,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn what PostgreSQL raises inside the block into what the loop understands."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as problem:
        known = meaning(problem)
        if known is None:
            raise
        raise known from problem


class KeyRaces:
    """Counts a batch's key races: the third in a row is no race but a contradiction in our own tables."""

    def __init__(self, most: int = 3) -> None:
        self._most = most
        self._seen = 0

    def judge(self, problem: KeyContended) -> FluxError:
        """Return the error to raise for one more race."""
        self._seen += 1
        if self._seen < self._most:
            return problem
        return InvariantBroken(Code.INVARIANT_BROKEN, "A key stays taken").with_context(**problem.context)

    def settled(self) -> None:
        """Forget the races: the batch went through."""
        self._seen = 0
