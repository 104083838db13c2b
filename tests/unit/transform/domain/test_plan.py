"""From a listing to a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Job
from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.domain.plan import Listed, PlannedObject, make_plan

JOB = Job("file:///a", "file:///b", "images", "research", partition_objects_max=2, partition_bytes_max=100)


def test_objects_are_sorted_and_cut_by_count_and_by_bytes() -> None:
    """Partitions fill greedily in key order; an object beyond bytes_max has a partition of its own."""
    listing = [
        Listed("c", 90, "3"),
        Listed("a", 10, "1"),
        Listed("d", 500, "4"),
        Listed("b", 10, "2"),
        Listed("e", 1, "5"),
    ]

    plan = make_plan(listing, JOB, DEFAULT_LIMITS)

    assert [(planned.key, planned.partition) for planned in plan.objects] == [
        ("a", 0),
        ("b", 0),
        ("c", 1),
        ("d", 2),
        ("e", 3),
    ]
    assert plan.partitions == (2, 1, 1, 1)
    assert plan.bytes == 611


def test_a_line_holds_what_the_design_says() -> None:
    """Key, size, ETag, media type by the name, partition."""
    plan = make_plan([Listed("box/scan.TIF", 7, "etag")], JOB, DEFAULT_LIMITS)

    assert plan.objects == (PlannedObject("box/scan.TIF", 7, "etag", "image/tiff", 0),)


def test_patterns_and_folder_markers_are_left_out() -> None:
    """Only what the request means is planned."""
    listing = [
        Listed("box/", 0, "0"),
        Listed("box/a.tif", 1, "1"),
        Listed("box/a.txt", 1, "2"),
        Listed("tmp/b.tif", 1, "3"),
    ]

    plan = make_plan(listing, replace(JOB, include=("*.tif",), exclude=("tmp/**",)), DEFAULT_LIMITS)

    assert [planned.key for planned in plan.objects] == ["box/a.tif"]


def test_an_empty_source_is_the_inputs_fault() -> None:
    """Nothing to do is a failure of cause input that no retry mends."""
    with pytest.raises(WorkFailed) as failed:
        make_plan([Listed("a.txt", 1, "1")], replace(JOB, include=("*.tif",)), DEFAULT_LIMITS)

    assert (failed.value.code, failed.value.cause, failed.value.transient) == (Code.SOURCE_EMPTY, "input", False)


@pytest.mark.parametrize("limits", [{"plan_partitions_max": 2}, {"plan_objects_max": 4}])
def test_a_plan_has_limits(limits: dict[str, int]) -> None:
    """More partitions or objects than one run may have are refused before anything is written."""
    listing = [Listed(str(n), 1, "") for n in range(5)]

    with pytest.raises(WorkFailed) as failed:
        make_plan(listing, JOB, replace(DEFAULT_LIMITS, **limits))

    assert failed.value.code == Code.PLAN_TOO_LARGE


listings = st.lists(st.tuples(st.text(min_size=1, max_size=5), st.integers(0, 300)), min_size=1, max_size=40).map(
    lambda rows: [Listed(key.replace("/", "_"), size, "e") for key, size in {row[0]: row for row in rows}.values()]
)


@given(listings, st.randoms())
def test_a_plan_depends_on_the_objects_and_not_on_the_order_they_are_listed_in(
    listing: list[Listed], order: object
) -> None:
    """Any order of the listing makes the same plan, whose partitions respect both bounds."""
    shuffled = list(listing)
    order.shuffle(shuffled)  # type: ignore[attr-defined]

    plan = make_plan(shuffled, JOB, DEFAULT_LIMITS)

    assert plan == make_plan(listing, JOB, DEFAULT_LIMITS)
    for number, count in enumerate(plan.partitions):
        sizes = [planned.size for planned in plan.objects if planned.partition == number]
        assert len(sizes) == count <= JOB.partition_objects_max
        assert len(sizes) == 1 or sum(sizes) <= JOB.partition_bytes_max
