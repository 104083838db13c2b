"""Do the chains cover the plan, and what does the manifest say?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from flux_common.contracts import canonical
from flux_common.kernel.codes import Code
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.finalize import Counts, Coverage, manifest_of, summarise
from flux_transform.domain.gather import Chain, Link
from flux_transform.domain.items import IndexName, Item, Job
from flux_transform.domain.plan import PlannedObject
from flux_transform.domain.records import FileEntry, inputs_of

RUN = "11111111-1111-5111-8111-111111111111"
JOB = Job("file:///a", "file:///b", "images", "research", labels={"license": "CC0-1.0"})
ITEM = Item("nasa", RUN, "r", 1, "finalize", 0, 1, JOB, plan_digest="plan")
PLAN = tuple(PlannedObject(key, 10, f"e-{key}", "image/png", 0) for key in ("a", "b", "c"))


def link(seq: int, cursor: int, objects: tuple[PlannedObject, ...]) -> Link:
    """Return an honest slice of some objects, one of which is rejected."""
    entry = FileEntry(f"data/images/part-{seq}", f"s{seq}", 4, len(objects) - 1)
    rejects = FileEntry(f"rejects/part-{seq}", f"r{seq}", 1, 1)
    digest = canonical.digest(inputs_of(objects))
    counts = (len(objects), len(objects) - 1, 1, 10 * len(objects), 5)
    return Link(
        f"d{seq}", "nasa", RUN, 0, seq, "p", cursor, *counts, digest, (entry, rejects), (("OBJECT_CORRUPT", 1),)
    )


CHAIN = Chain(0, (link(1, 2, PLAN[:2]), link(2, 3, PLAN[2:])))
COUNTS = Counts(3, 1, 2, 30, 10)


def test_chains_that_read_the_plan_pass() -> None:
    """Each slice's inputs are its range of the plan, and the sums are the plan's."""
    coverage = Coverage([CHAIN], canonical.digest)

    coverage.check(0, PLAN)
    coverage.close(COUNTS)

    assert (coverage.objects, coverage.bytes) == (3, 30)


@pytest.mark.parametrize(
    ("chains", "plan", "expected"),
    [
        ([CHAIN], (PLAN[0], replace(PLAN[1], etag="other"), PLAN[2]), Code.CHAIN_CORRUPT),
        ([CHAIN], (*PLAN, PLAN[0]), Code.COUNTS_MISMATCH),
        ([Chain(0, CHAIN.links[:1])], PLAN, Code.COUNTS_MISMATCH),
        ([], PLAN, Code.COUNTS_MISMATCH),
        ([Chain(1, CHAIN.links)], PLAN, Code.COUNTS_MISMATCH),
    ],
)
def test_a_chain_that_read_something_else_fails_the_run(
    chains: list[Chain], plan: tuple[PlannedObject, ...], expected: Code
) -> None:
    """A changed input, a missing or foreign chain, too few objects: nothing of it reaches a manifest."""
    coverage = Coverage(chains, canonical.digest)

    with pytest.raises(WorkFailed) as failed:
        coverage.check(0, plan)

    assert failed.value.code == expected


@pytest.mark.parametrize("counts", [replace(COUNTS, bytes_in=31), replace(COUNTS, written=2), replace(COUNTS, read=4)])
def test_the_sums_must_be_those_of_the_plan(counts: Counts) -> None:
    """Read, bytes and written + rejected are compared with the plan."""
    coverage = Coverage([CHAIN], canonical.digest)
    coverage.check(0, PLAN)

    with pytest.raises(WorkFailed) as failed:
        coverage.close(counts)

    assert failed.value.code == Code.COUNTS_MISMATCH


def test_a_chain_without_a_partition_is_left_over() -> None:
    """A chain that the plan does not know is noticed at the end."""
    coverage = Coverage([CHAIN, Chain(1, CHAIN.links)], canonical.digest)
    coverage.check(0, PLAN)

    with pytest.raises(WorkFailed):
        coverage.close(COUNTS)


def test_the_manifest_names_everything() -> None:
    """Every file, the counts, the plan, the chain heads, the transform, the labels."""
    summary = summarise(ITEM, "images/research", "v1", [CHAIN])

    manifest = manifest_of(
        summary, FileEntry("plan-x", "plan", 9, 3), [(IndexName(0, "i"), FileEntry("index/x", "i", 7, 1))], []
    )

    assert manifest["counts"] == {"read": 3, "written": 1, "rejected": 2, "bytes_in": 30, "bytes_out": 10}
    assert manifest["rejects"] == [{"code": "OBJECT_CORRUPT", "count": 2}]
    assert manifest["partitions"] == [{"number": 0, "last_seq": 2, "head": "d2"}]
    assert [file["name"] for file in manifest["tables"]["images"]] == ["data/images/part-1", "data/images/part-2"]
    assert [file["name"] for file in manifest["reject_files"]] == ["rejects/part-1", "rejects/part-2"]
    assert manifest["labels"] == {"license": "CC0-1.0"}
    assert manifest["transform"] == {"name": "images/research", "version": "v1"}
