"""Which id an acceptance occupies, and which run it names."""

from __future__ import annotations

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import run_id
from flux_common.kernel.positions import TopicPartition
from flux_ingest.domain.model import Asked, Kind, Rejected

PLACE = TopicPartition("flux.nasa.run.requests.v1", 0).at(0)


def test_a_request_is_named_by_its_request_a_command_by_itself() -> None:
    """Two commands on one run occupy two ids, and name the same run."""
    asked = Asked(PLACE, Kind.RUN, "nasa", "r-1", None, "a" * 64, None)
    command = Asked(PLACE, Kind.COMMAND, "nasa", "r-1", "c-1", "a" * 64, None)

    assert (asked.name, command.name) == ("r-1", "c-1")
    assert asked.run_id == command.run_id == run_id("nasa", "r-1")


def test_a_refused_command_without_a_readable_id_has_no_name() -> None:
    """The run's request id is not the command's."""
    assert Rejected(PLACE, Kind.COMMAND, Code.SCHEMA_VIOLATION, True, "r-1").name is None
