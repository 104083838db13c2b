"""What is known of the seal: the lag by the last word of an agency's audit lane, and whom it has wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from flux_common.auth import Agency
from flux_common.contracts.catalogue import AUDIT
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, Overloaded
from flux_common.kernel.ids import fact_partition
from flux_common.observability import metrics
from flux_ingest.domain.seals import Seals, is_behind
from flux_ingest.handlers.sealing import SealGate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOST = timedelta(seconds=30)
NASAS = fact_partition("nasa", AUDIT.kafka_partitions)
OTHER = next(n for n in range(1, AUDIT.kafka_partitions) if n != NASAS)


def ago(seconds: float) -> datetime:
    """Return a moment before now."""
    return NOW - timedelta(seconds=seconds)


def heard(*words: tuple[int, datetime]) -> Seals:
    """Return what is known after these words, each of a lane."""
    seals = Seals(AUDIT.kafka_partitions)
    for kafka_partition, watermark in words:
        seals.hear(kafka_partition, watermark)
    return seals


@pytest.mark.parametrize(
    ("words", "lag", "behind"),
    [
        ([], None, True),
        ([(NASAS, ago(6))], 6, False),
        ([(NASAS, ago(30))], 30, False),
        ([(NASAS, ago(30.001))], 30.001, True),
        ([(OTHER, ago(1)), (0, ago(1))], None, True),
        ([(OTHER, ago(90)), (NASAS, ago(1))], 1, False),
        ([(NASAS, ago(90)), (NASAS, ago(1))], 1, False),
        ([(NASAS, ago(1)), (NASAS, ago(90))], 90, True),
        ([(NASAS, ago(-2))], -2, False),
        ([(NASAS, ago(-3600))], -3600, True),
        ([(NASAS, ago(-3600)), (NASAS, ago(5))], 5, False),
    ],
    ids=[
        "nothing is known", "a quiet log", "as late as may be", "later", "only other lanes", "another lane is late",
        "sealed again", "the last word counts", "a little of the future", "a clock that is wrong", "and was set right",
    ],
)  # fmt: skip
def test_the_lag_is_that_of_the_agencys_lane_by_its_last_word(
    words: list[tuple[int, datetime]], lag: float | None, behind: bool
) -> None:
    """Nothing known, a word that is too old and one that cannot be true are behind; other lanes do not matter."""
    found = heard(*words).lag("nasa", NOW)

    assert found == (None if lag is None else timedelta(seconds=lag))
    assert is_behind(found, MOST) is behind


@pytest.fixture
def nasa(desk: object) -> Agency:
    """NASA, which wants nothing decided that is not sealed soon."""
    agency = desk.trust.registry.agency("nasa")  # type: ignore[attr-defined]
    assert agency is not None
    return replace(agency, audit_required=True)


def test_who_does_not_require_it_is_decided_whatever_the_seal(nasa: Agency) -> None:
    """The gate asks nothing of an agency without `audit_required`."""
    SealGate(heard(), MOST).check(replace(nasa, audit_required=False), NOW)


def test_who_requires_it_waits_as_one_who_keeps_the_lane(nasa: Agency) -> None:
    """The lane is held and not left (`Overloaded`), so that readiness stays; the code says why, and it is audit's matter."""
    with pytest.raises(Overloaded) as refused:
        SealGate(heard((NASAS, ago(31))), MOST).check(nasa, NOW)

    assert refused.value.code == Code.SEAL_LAGGING
    assert refused.value.classification is Classification.AUDIT
    SealGate(heard((NASAS, ago(29))), MOST).check(nasa, NOW)


def test_a_wait_is_said_once_and_its_end_once_and_every_try_is_counted(nasa: Agency) -> None:
    """Tries come again and again; the log has one line for each change."""
    seals = heard()
    gate, counter = SealGate(seals, MOST), metrics.intake_held.labels("nasa")
    before = counter._value.get()
    with capture_logs() as lines:
        gate.check(replace(nasa, audit_required=False), NOW)
        for _ in range(3):
            with pytest.raises(Overloaded):
                gate.check(nasa, NOW)
        seals.hear(NASAS, ago(1))
        for _ in range(3):
            gate.check(nasa, NOW)

    assert [(line["log_level"], line["agency_id"]) for line in lines] == [("error", "nasa"), ("info", "nasa")]
    assert counter._value.get() - before == 3


def test_whoever_is_relieved_of_the_duty_goes_on(nasa: Agency) -> None:
    """An operator who takes `audit_required` away frees the agency, and the log says so."""
    gate = SealGate(heard(), MOST)
    with pytest.raises(Overloaded):
        gate.check(nasa, NOW)
    with capture_logs() as lines:
        gate.check(replace(nasa, audit_required=False), NOW)

    assert [line["agency_id"] for line in lines] == ["nasa"]
