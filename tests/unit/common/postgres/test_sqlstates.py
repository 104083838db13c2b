"""The one table of SQLSTATEs: what each class of failure means to the loop."""

from __future__ import annotations

import asyncpg
import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage, InvariantBroken, IsolationViolation, Unavailable
from flux_common.postgres.sqlstates import (
    Contended,
    KeyContended,
    KeyRaces,
    RecordRefused,
    connecting,
    meaning,
    translated,
)

TABLE = {
    RecordRefused: ["22000", "22001", "22003", "22021", "22P02", "22P05", "23502", "23514"],
    KeyContended: ["23505", "23503"],
    Contended: ["40001", "40P01", "40003", "55P03"],
    Unavailable: [
        *("08000", "08003", "08006", "53100", "53300", "57014", "57P01", "57P02", "57P03", "58030", "25P03", "25P04")
    ],
    IsolationViolation: ["42501"],
    type(None): ["25P02", "25006", "42P01", "42601", "0A000", "28P01", "3D000", "XX000", "XX001", "P0001", "23P01", ""],
}


def failure(state: str, **fields: str) -> asyncpg.PostgresError:
    """Return what the driver raises for a state."""
    told = {"S": "ERROR", "V": "ERROR", "C": state, "M": "x", **fields}
    return asyncpg.PostgresError.new(told)


@pytest.mark.parametrize(("kind", "state"), [(kind, state) for kind, states in TABLE.items() for state in states])
def test_each_state_means_one_thing(kind: type, state: str) -> None:
    """The table of docs/semantics.md, state by state; what is not in it is not translated."""
    assert type(meaning(failure(state))) is kind


@pytest.mark.parametrize("table", ["lanes", "ledger", "ledger_exceptions", "relay_leases"])
@pytest.mark.parametrize("state", ["23514", "23505", "23502"])
def test_the_machinerys_own_rows_are_nobodys_record(table: str, state: str) -> None:
    """What we computed breaks a rule of ours: no record is dead-lettered for it, and no retry mends it."""
    told = meaning(failure(state, t=table, n="some_check"))

    assert type(told) is InvariantBroken
    assert told.context == {"sqlstate": state, "table": table, "constraint": "some_check"}


def test_the_context_names_the_constraint_and_no_value() -> None:
    """Enough to find what happened; the message and the detail of the server may hold a stranger's input."""
    told = meaning(failure("23514", t="runs", n="runs_state_check", D="Failing row contains (secret)"))

    assert told is not None
    assert told.context == {"sqlstate": "23514", "table": "runs", "constraint": "runs_state_check"}
    assert "secret" not in f"{told}{told.context}"


LOST = [
    ConnectionResetError(),
    TimeoutError(),
    BrokenPipeError(),
    asyncpg.InternalClientError("cannot switch to state"),
]


@pytest.mark.parametrize("problem", LOST)
def test_a_lost_connection_is_an_outage(problem: Exception) -> None:
    """Resets, broken pipes, a server that does not answer at all, and a driver that was hung up on in mid-sentence."""
    told = meaning(problem)

    assert isinstance(told, Unavailable)
    assert told.code == Code.DATABASE_UNAVAILABLE


@pytest.mark.parametrize("problem", [FileNotFoundError("x"), ValueError("x"), KeyError("x"), InvalidMessage("X", "x")])
def test_what_is_not_postgresqls_passes(problem: Exception) -> None:
    """Translation never swallows: an error of ours leaves the block as it is, also while connecting it stays ours."""
    with pytest.raises(type(problem)) as passed, translated(lambda: True):
        raise problem

    assert passed.value is problem


def test_the_drivers_complaint_is_an_outage_only_when_the_connection_is_gone() -> None:
    """The same class of the driver also says that a call was wrong."""
    with pytest.raises(asyncpg.InterfaceError), translated():
        raise asyncpg.InterfaceError("the server expects 1 argument")
    with pytest.raises(Unavailable), translated(lambda: True):
        raise asyncpg.InterfaceError("connection is closed")


@pytest.mark.parametrize("problem", [OSError(113, "No route to host"), asyncpg.InterfaceError("pool is closing")])
def test_whatever_the_system_says_while_connecting_is_an_outage(problem: Exception) -> None:
    """Name resolution, routes, refused and closed pools: there is no connection."""
    with pytest.raises(Unavailable), connecting():
        raise problem


def test_a_wrong_password_is_no_outage() -> None:
    """28P01 does not mend itself: it ends the process, and says so."""
    with pytest.raises(asyncpg.InvalidPasswordError), connecting():
        raise failure("28P01")


def test_the_third_race_in_a_row_is_a_contradiction() -> None:
    """Twice it is tried again; the third time our own tables contradict themselves. A success between forgets."""
    races, race = KeyRaces(), KeyContended(Code.DATABASE_UNAVAILABLE, "x").with_context(sqlstate="23505")
    told = [races.judge(race), races.judge(race)]
    races.settled()
    told += [races.judge(race), races.judge(race), races.judge(race)]

    assert [type(problem) for problem in told] == [KeyContended] * 4 + [InvariantBroken]
    assert told[-1].context == {"sqlstate": "23505"}
