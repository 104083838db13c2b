"""Names here and on the broker."""

from __future__ import annotations

import re

import pytest
from aiokafka import TopicPartition as BrokerPartition

from flux_common.kafka.names import Names
from flux_common.kernel.positions import TopicPartition


@pytest.mark.parametrize("prefix", ["", "t1-x."])
def test_there_and_back(prefix: str) -> None:
    """What goes out comes back; without a prefix nothing changes."""
    names, tp = Names(prefix), TopicPartition("flux-internal.runs.v1", 3)

    assert names.outward_partition(tp) == BrokerPartition(f"{prefix}flux-internal.runs.v1", 3)
    assert names.inward_partition(names.outward_partition(tp)) == tp


def test_a_topic_of_another_prefix_is_none_of_ours() -> None:
    """It cannot be named."""
    with pytest.raises(ValueError, match="prefix"):
        Names("a.").inward("b.flux")


def test_a_pattern_is_anchored_behind_the_prefix() -> None:
    """An expression matches whole names of this prefix alone; an alternative cannot escape its anchors."""
    pattern = re.compile(Names("p.").pattern(r"flux\.[a-z]+\.x|y"))
    told = [name for name in ("p.flux.nasa.x", "p.y", "flux.nasa.x", "p.flux.nasa.xx", "qp.y", "py", "p.y\n")
            if pattern.match(name)]  # fmt: skip

    assert told == ["p.flux.nasa.x", "p.y"]


def test_plain_names_are_taken_literally() -> None:
    """Dots of a name match dots alone."""
    pattern = re.compile(Names("p.").pattern(["a.b", "c"]))

    assert [name for name in ("p.a.b", "p.c", "p.axb", "p.a.b.c") if pattern.match(name)] == ["p.a.b", "p.c"]
