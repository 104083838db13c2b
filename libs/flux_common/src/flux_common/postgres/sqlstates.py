"""What each failure of PostgreSQL means to the loop; the one place that knows SQLSTATEs (docs/semantics.md).

| state | meaning |
|---|---|
| 22, 23502, 23514 | the record is refused: `RecordRefused`, the loop bisects and dead-letters |
| 40, 55P03, 23505, 23503 | a race: `Contended`, the batch is tried again |
| 08, 53, 57, 58, 25P03, 25P04 and lost connections | `Unavailable` |
| 42501 | `IsolationViolation`: the process stops |
| 23 of the machinery's own tables | `InvariantBroken`: what we computed contradicts itself; no record is to blame |
| 0A000 of a plan that a migration outdated | `Contended`: the driver has thrown the plan away, the batch is tried again |
| the driver lost track of its connection | `Unavailable`: that is what it says when the server hangs up at the wrong moment |
| 28, 3D000, 42501 of the connection by which a process starts | `Unavailable`: roles and secrets come when they come |
| anything else | raised as it is: the process stops |

Only what PostgreSQL and the way to it raise is translated: another error of a block, a missing file or a wrong call of
the driver, is a fault of ours and stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from flux_common.observability import metrics


class RecordRefused(InvalidMessage):
    """The database's constraints refuse the values of a record."""


class Contended(Unavailable):
    """Another transaction was in the way; the same batch may succeed at once."""


class KeyContended(Contended):
    """A unique or foreign key was in the way: a race, unless it happens again and again."""


_REFUSED = ("22", "23502", "23514")
_CONTENDED = ("40", "55P03")
_KEYS = ("23505", "23503")
_OUTAGE = ("08", "53", "57", "58", "25P03", "25P04")
# Rows that are computed, never copied from a record.
_MACHINERY = frozenset({"lanes", "ledger", "ledger_exceptions", "relay_leases"})


def meaning(problem: Exception) -> FluxError | None:
    """Return the FluxError that `problem` stands for; None where it is unknown and must stop the process."""
    if isinstance(problem, asyncpg.InvalidCachedStatementError):
        return Contended(Code.DATABASE_UNAVAILABLE, "A migration changed what a statement returns", retry_in=0.05)
    if isinstance(problem, asyncpg.PostgresError):
        return _of_state(problem.sqlstate or "", problem)
    if isinstance(problem, (ConnectionError, TimeoutError, asyncpg.InternalClientError)):
        return _outage(type(problem).__name__)
    return None


def _of_state(state: str, problem: asyncpg.PostgresError) -> FluxError | None:
    table = getattr(problem, "table_name", None)
    where = {"sqlstate": state, "table": table, "constraint": getattr(problem, "constraint_name", None)}
    if state == "42501":
        return IsolationViolation(Code.ISOLATION_VIOLATION, "The database refused access").with_context(**where)
    if state.startswith("23") and table in _MACHINERY:
        return InvariantBroken(Code.INVARIANT_BROKEN, f"The machinery's rows break a rule ({state})").with_context(
            **where
        )
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


# Said to a login by which a process starts: the roles job has not been here yet, or the secret is not the right one yet.
_NOT_LET_IN = ("28", "3D000", "42501")


def _never() -> bool:
    return False


@contextmanager
def translated(gone: Callable[[], bool] = _never) -> Iterator[None]:
    """Turn what PostgreSQL raises inside the block into what the loop understands.

    `gone` tells whether the block's connection is closed: then the driver's own complaints are an outage, too.
    """
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as problem:
        known = meaning(problem)
        if known is None and isinstance(problem, asyncpg.InterfaceError) and gone():
            known = _outage(type(problem).__name__)
        if known is None:
            raise
        if isinstance(known, IsolationViolation):
            metrics.isolation_violations.inc()
        raise known from problem


@contextmanager
def connecting() -> Iterator[None]:
    """Do the same while a connection is made, when whatever the system or the pool says is an outage."""
    try:
        with translated():
            yield
    except (asyncpg.InterfaceError, OSError) as problem:
        raise _outage(type(problem).__name__) from problem


@contextmanager
def logging_in() -> Iterator[None]:
    """Do the same for the connection by which a process starts: what an operator will mend is an outage, too.

    Later it is none: a process whose password was changed under it ends, and its successor reads the new one.
    """
    with connecting():
        try:
            yield
        except asyncpg.PostgresError as problem:
            if not (problem.sqlstate or "").startswith(_NOT_LET_IN):
                raise
            raise Unavailable(
                Code.DATABASE_UNAVAILABLE,
                f"PostgreSQL does not let this role in ({type(problem).__name__}): run `roles`, or mount its password",
                classification=Classification.STORAGE,
            ) from problem


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
