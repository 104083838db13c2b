"""The plan as a file: any reader's ndjson, and one partition without the rest."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_transform.adapters.plan_file import PlanFiles, plan_name
from flux_transform.adapters.store import Access, OpenStores
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item, Job
from flux_transform.domain.plan import PlannedObject
from flux_transform.ports import Destination

RUN = "11111111-1111-5111-8111-111111111111"
ITEM = Item("nasa", RUN, "r", 1, "extract", 0, 1, Job("memory://b/in", "memory://b/out", "text", "research"))
PLANS = PlanFiles()


def objects(*counts: int) -> list[PlannedObject]:
    """Return planned objects, so many per partition."""
    names = ((number, n) for number, count in enumerate(counts) for n in range(count))
    return [PlannedObject(f"{number:05d}/{n:05d} ü\n", n, f'"{n}"', "text/plain", number) for number, n in names]


async def stored(data: bytes, digest: str | None = None) -> tuple[Destination, str]:
    """Store a plan file."""
    destination = OpenStores(Access(memory=True)).destination(ITEM)
    digest = digest or sha256_hex(data)
    await destination.put(plan_name(digest), data)
    return destination, digest


def test_any_zstd_reader_sees_ndjson() -> None:
    """The seek table is in a skippable frame; lines are the design's."""
    data = PLANS.encode(objects(2, 1))

    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()
    lines = [json.loads(line) for line in plain.splitlines()]

    assert [line["partition"] for line in lines] == [0, 0, 1]
    assert lines[0] == {"key": "00000/00000 ü\n", "size": 0, "etag": '"0"', "media_type": "text/plain", "partition": 0}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_the_same_plan_is_the_same_file(counts: list[int]) -> None:
    """The digest names the plan."""
    assert PLANS.encode(objects(*counts)) == PLANS.encode(iter(objects(*counts)))


async def test_a_partition_is_read_back() -> None:
    """Each partition's objects, and all of them in order."""
    planned = objects(3, 1, 2)
    destination, digest = await stored(PLANS.encode(planned))

    found = [
        await PLANS.read_partition(destination, replace(ITEM, plan_digest=digest, number=n, count=count))
        for n, count in enumerate((3, 1, 2))
    ]
    everything, size = await PLANS.read_all(destination, digest)

    assert [entry for partition in found for entry in partition] == planned
    assert [(number, len(partition)) for number, partition in everything] == [(0, 3), (1, 1), (2, 2)]
    assert size == len(await destination.get(plan_name(digest)))


class Noting:
    """A destination that notes what is read of it."""

    def __init__(self, inner: Destination) -> None:
        self.inner, self.ranges = inner, 0
        self.uri, self.put, self.replace, self.get_tail = inner.uri, inner.put, inner.replace, inner.get_tail

    async def get(self, name: str) -> bytes:
        """Refuse to read all."""
        raise AssertionError(f"{name} was read as a whole")

    async def get_range(self, name: str, start: int, end: int) -> bytes:
        """Note the bytes read."""
        self.ranges += end - start
        return await self.inner.get_range(name, start, end)


async def test_of_a_large_plan_only_the_partition_is_read() -> None:
    """9,000 partitions: a table longer than the tail, and one frame."""
    planned = objects(*[40] * 9_000)
    data = PLANS.encode(planned)
    destination, digest = await stored(data)
    noting = Noting(destination)

    found = await PLANS.read_partition(noting, replace(ITEM, plan_digest=digest, number=8_999, count=40))

    assert len(data) > 2**20
    assert list(found) == planned[-40:]
    assert noting.ranges < 10_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 2, "count": 1},
        {"number": 1, "count": 2},
        {"number": 0, "count": 1, "plan_digest": "0" * 64},
    ],
)
async def test_another_plan_than_the_dispatched_one_fails_the_run(wrong: dict[str, object]) -> None:
    """A partition that is not there or has another size, and a plan that is not there."""
    destination, digest = await stored(PLANS.encode(objects(1, 1)))
    item = replace(replace(ITEM, plan_digest=digest), **wrong)  # type: ignore[arg-type]

    with pytest.raises(WorkFailed) as failed:
        await PLANS.read_partition(destination, item)

    assert failed.value.code == Code.PLAN_MISMATCH


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "table"])
async def test_a_damaged_plan_is_noticed(damage: str) -> None:
    """A flipped bit, a missing end, nothing, or a table that does not fit."""
    data = PLANS.encode(objects(3, 3))
    bad = {
        "bit": data[:20] + bytes([data[20] ^ 1]) + data[21:],
        "cut": data[:-5],
        "empty": b"",
        "table": data[:-17] + b"\xff" * 4 + data[-13:],
    }[damage]
    named_well, digest_well = await stored(bad)  # even if the file's name were right
    destination, digest = await stored(bad, sha256_hex(data))

    with pytest.raises(WorkFailed) as failed:
        await PLANS.read_all(destination, digest)
    if damage != "bit":
        with pytest.raises(WorkFailed):
            await PLANS.read_all(named_well, digest_well)

    assert failed.value.code == Code.PLAN_MISMATCH
