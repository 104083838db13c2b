"""Records as ingest and the workers write them, for checkpoint's lanes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flux_common.contracts import catalogue, progress, runs
from flux_common.contracts.canonical import encode
from flux_common.contracts.catalogue import EventSpec
from flux_common.contracts.envelope import body_bytes, headers_for
from flux_common.contracts.requests import RunRequested
from flux_common.contracts.types import Event
from flux_common.kernel.ids import run_id, sha256_hex

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGENCY = "nasa"
RUN = str(run_id(AGENCY, "r-1"))
PLAN = "ab" * 32

Headers = list[tuple[str, bytes]]
Written = tuple[Headers, bytes | None]


def record(spec: EventSpec, body: Event, **more: Any) -> Written:
    """Return a record of an event."""
    return headers_for(spec, event_id=str(UUID(int=7)), source="t", at=NOW, **more), body_bytes(body)


def admitted(request_id: str = "r-1", agency: str = AGENCY, traceparent: str | None = None, **changes: Any) -> Written:
    """Return an admitted run; `changes` are of its request, but for the windows."""
    windows = {name: changes.pop(name, most) for name, most in (("run_window", 32), ("agency_window", 128))}
    request = {
        "request_id": request_id,
        "source": {"uri": "file:///a/"},
        "destination": {"uri": "file:///b/"},
        "content_type": "text",
        "use_case": "research",
    }
    body = runs.RunAdmitted(
        agency_id=agency,
        request_id=request_id,
        run_id=str(run_id(agency, request_id)),
        request=RunRequested.model_validate(request | changes),
        request_sha256="cd" * 32,
        admitted_at="2026-01-01T00:00:00.000Z",
        **windows,
    )
    return record(catalogue.RUN_ADMITTED, body, traceparent=traceparent)


def command(name: Any, command_id: str, request_id: str = "r-1", agency: str = AGENCY) -> Written:
    """Return an admitted command."""
    body = runs.CommandAdmitted(
        agency_id=agency,
        request_id=request_id,
        run_id=str(run_id(agency, request_id)),
        command_id=command_id,
        command=name,
        reason="test",
    )
    return record(catalogue.COMMAND_ADMITTED, body)


def report(work: dict[str, Any], spec: EventSpec, **more: Any) -> Written:
    """Return a worker's report on an item."""
    named = {key: work[key] for key in ("agency_id", "run_id", "kind", "number", "term")} | {"worker": "w"}
    return record(spec, spec.model.model_validate(named | more))


def started(work: dict[str, Any]) -> Written:
    """Return the report that a worker began."""
    return report(work, catalogue.STARTED, transform_version="v1")


def planned_report(work: dict[str, Any], partitions: list[int], **more: Any) -> Written:
    """Return the report of a plan."""
    named = {"plan_digest": PLAN, "objects": sum(partitions), "bytes": 99, "transform_version": "v1"}
    return report(work, catalogue.PLANNED, **(named | {"partitions": partitions} | more))


def a_slice(
    work: dict[str, Any], seq: int, prev: str, cursor: int, read: int, *, rejected: int = 1, **changes: Any
) -> tuple[Written, str]:
    """Return a slice report and the digest of its record."""
    body = {
        "v": 1, "agency_id": work["agency_id"], "run_id": work["run_id"], "partition": work["number"], "seq": seq,
        "prev": prev, "cursor": cursor, "read": read, "written": read - rejected, "rejected": rejected, "bytes_in": 10,
        "bytes_out": 5, "inputs_digest": "ef" * 32, "outputs": [],
        "rejects": [{"code": "OBJECT_CORRUPT", "count": rejected}] if rejected else [],
    } | changes  # fmt: skip
    value = encode(progress.SliceRecord.model_validate(body).model_dump())
    headers = headers_for(
        catalogue.SLICED,
        event_id=str(UUID(int=seq)),
        source="t",
        at=NOW,
        subject=f"{work['run_id']}/extract/{work['number']}",
        extensions={"ce_fluxterm": str(work["term"]), "ce_fluxseq": str(seq)},
    )
    return (headers, value), sha256_hex(value)


def whole(work: dict[str, Any], *, rejected: int = 0) -> list[Written]:
    """Return the reports that do an extract item in one slice, from where it stands."""
    count, done = work["range"]["count"], work.get("cursor", 0)
    one, head = a_slice(work, work["next_seq"], work["chain_head"], count, count - done, rejected=rejected)
    return [one, report(work, catalogue.FINISHED, last_seq=work["next_seq"], head=head)]


def answer(work: dict[str, Any], partitions: list[int]) -> list[Written]:
    """Return an honest worker's reports on an item of any kind."""
    match work["kind"]:
        case "plan":
            return [started(work), planned_report(work, partitions)]
        case "extract":
            return [started(work), *whole(work)]
        case "gather":
            return [report(work, catalogue.FINISHED, last_seq=0, result_digest="11" * 32)]
        case _:
            return [
                report(
                    work, catalogue.FINISHED, last_seq=0, result_digest="22" * 32,
                    manifest_uri=f"file:///b/{work['run_id']}/manifest-{'22' * 32}.json",
                    files=3, rows=8,
                )
            ]  # fmt: skip
