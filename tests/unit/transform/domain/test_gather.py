"""Walking chains: what is accepted, and what fails the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.gather import Chain, ChainWalk, Link, chains_of, check_heads, index_of
from flux_transform.domain.items import Head, Item, Job
from flux_transform.domain.records import FileEntry

RUN = "11111111-1111-5111-8111-111111111111"
JOB = Job("file:///a", "file:///b", "images", "research")
ITEM = Item("nasa", RUN, "r", 1, "gather", 0, 1, JOB, plan_digest="plan")
FIRST = Link(
    "d1", "nasa", RUN, 4, 1, "plan", 2, 2, 1, 1, 20, 5, "in1", (FileEntry("data/x/1", "s", 5, 1),), (("E", 1),)
)
SECOND = Link("d2", "nasa", RUN, 4, 2, "d1", 5, 3, 3, 0, 30, 0, "in2", (), ())
HEAD = Head(4, 2, "d2")


def walked(*links: Link) -> Chain:
    """Walk the links, newest first."""
    walk = ChainWalk(ITEM, HEAD)
    for link in links:
        assert walk.wanted == link.digest
        walk.take(link)
    assert walk.wanted is None
    return walk.chain()


def test_a_chain_is_walked_from_its_head_to_the_plan() -> None:
    """The head names the last record, each record the one before it, the first one the plan."""
    chain = walked(SECOND, FIRST)

    assert chain == Chain(4, (FIRST, SECOND))
    assert chain.head == "d2"


@pytest.mark.parametrize(
    "change",
    [
        {"agency_id": "national-archives"},
        {"run_id": "22222222-2222-5222-8222-222222222222"},
        {"partition": 5},
        {"seq": 2},
        {"prev": "other"},
        {"read": 3},
        {"rejects": ()},
        {"bytes_out": 6},
        {"cursor": 3},
    ],
)
def test_a_record_that_does_not_stand_there_fails_the_run(change: dict[str, Any]) -> None:
    """Another run's, another partition's, a gap, wrong counts, a chain that ends elsewhere: all are CHAIN_CORRUPT."""
    with pytest.raises(WorkFailed) as failed:
        walked(SECOND, replace(FIRST, **change))

    assert failed.value.code == Code.CHAIN_CORRUPT


def test_an_index_can_be_read_back() -> None:
    """What finalize reads is what gather walked."""
    chain = walked(SECOND, FIRST)

    found = chains_of(ITEM, 0, index_of(ITEM, [chain]))

    assert found == [chain]


@pytest.mark.parametrize(
    "change", [{"plan_digest": "other"}, {"number": 1}, {"partitions": [{"partition": 1}]}, {"v": 2}]
)
def test_another_index_is_refused(change: dict[str, Any]) -> None:
    """An index of another plan, number or form is CHAIN_CORRUPT."""
    index = index_of(ITEM, [walked(SECOND, FIRST)]) | change

    with pytest.raises(WorkFailed) as failed:
        chains_of(ITEM, 0, index)

    assert failed.value.code == Code.CHAIN_CORRUPT


@pytest.mark.parametrize("heads", [(), (HEAD, HEAD), (HEAD, Head(5, 1, "x"), Head(6, 1, "y"))])
def test_a_gather_item_names_each_partition_once_and_not_too_many(heads: tuple[Head, ...]) -> None:
    """None, repeated or more than the limit are refused."""
    with pytest.raises(WorkFailed):
        check_heads(heads, 2)
