"""From event to item."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flux_common.contracts.requests import Destination, OnReject, Partitioning, Source
from flux_common.contracts.work import ChainHead, GatheredIndex, Job, PlanRange, WorkDispatched
from flux_transform.domain.items import Head, IndexName, Item
from flux_transform.domain.items import Job as ItemJob
from flux_transform.handlers.dispatched import item_of, what_can_be_read

RUN = "11111111-1111-5111-8111-111111111111"


def test_every_field_of_the_event_reaches_the_item() -> None:
    """What the handlers see is what checkpoint dispatched."""
    event = WorkDispatched(
        agency_id="nasa",
        run_id=RUN,
        request_id="r",
        run_attempt=2,
        kind="extract",
        number=3,
        term=4,
        attempt=1,
        job=Job(
            source=Source(uri="s3://a/", include=["*.tif"], exclude=["tmp/**"]),
            destination=Destination(uri="s3://b/"),
            content_type="images",
            use_case="research",
            partitioning=Partitioning(objects_max=10, bytes_max=1000),
            on_reject=OnReject(),
            options={"o": True},
            labels={"l": "x"},
        ),
        transform_version="v",
        plan_digest="a" * 64,
        range=PlanRange(first=30, count=10),
        next_seq=5,
        cursor=6,
        chain_head="b" * 64,
        heads=[ChainHead(number=1, last_seq=2, head="c" * 64)],
        indexes=[GatheredIndex(number=0, index_digest="d" * 64)],
    )

    item = item_of(event)

    job = ItemJob(
        "s3://a/", "s3://b/", "images", "research", ("*.tif",), ("tmp/**",), 10, 1000, {"o": True}, {"l": "x"}
    )
    assert item == Item(
        "nasa", RUN, "r", 2, "extract", 3, 4, job, "v", "a" * 64, 30, 10, 5, 6, "b" * 64,
        (Head(1, 2, "c" * 64),), (IndexName(0, "d" * 64),),
    )  # fmt: skip


NAMED = {"agency_id": "nasa", "run_id": RUN, "kind": "extract", "number": 3, "term": 4}


def test_an_item_with_unknown_members_is_still_known_by_name() -> None:
    """Who it is, under which term, and where its chain ends."""
    value = json.dumps(NAMED | {"next_seq": 5, "chain_head": "b" * 64, "colour": "blue", "job": []}).encode()

    item = what_can_be_read(value)

    assert item is not None
    assert (item.agency_id, item.name, item.term) == ("nasa", f"{RUN}/extract/3", 4)
    assert (item.next_seq, item.chain_head) == (5, "b" * 64)


@pytest.mark.parametrize(
    "change", [{"kind": "polish"}, {"term": 0}, {"term": "4"}, {"agency_id": "a/b"}, {"run_id": ""}]
)
def test_an_item_that_no_report_could_name_is_not_known(change: dict[str, Any]) -> None:
    """A report must keep to its own contract."""
    assert what_can_be_read(json.dumps(NAMED | change).encode()) is None
    assert what_can_be_read(None) is None
