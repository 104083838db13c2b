"""Reading workers' reports: every refusal has its class and code, and no bytes make the reader raise anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_checkpoint.domain.model import Alive, Counts, Failed, Finished, ItemKey, Planned, Report, Slice, Started
from flux_checkpoint.handlers.decoding import read_report
from flux_common.contracts import catalogue
from flux_common.contracts.canonical import encode
from flux_common.contracts.catalogue import EventSpec
from flux_common.contracts.envelope import headers_for
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import InvalidMessage, RunBroken
from flux_common.kernel.ids import sha256_hex
from flux_common.kernel.positions import Received, TopicPartition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = str(UUID(int=1))
PLACE = TopicPartition("flux-internal.progress.v1", 2).at(7)
NAMED = {"agency_id": "nasa", "run_id": RUN, "number": 3, "term": 4, "worker": "w-1"}
RECORD = {
    "v": 1, "agency_id": "nasa", "run_id": RUN, "partition": 3, "seq": 2, "prev": "ab" * 32, "cursor": 5, "read": 3,
    "written": 2, "rejected": 1, "bytes_in": 10, "bytes_out": 5, "inputs_digest": "ef" * 32,
    "outputs": [{"name": name, "sha256": "12" * 32, "bytes": 1, "rows": 1} for name in ("a", "b")],
    "rejects": [{"code": "OBJECT_CORRUPT", "count": 1}],
}  # fmt: skip
PLANNED = NAMED | {
    "kind": "plan", "plan_digest": "ab" * 32, "objects": 5, "bytes": 9, "partitions": [3, 2], "transform_version": "v",
}  # fmt: skip


def received(spec: EventSpec | str, value: bytes | None, at: datetime | None = NOW, **more: Any) -> Received:
    """Return a record of the progress lane."""
    known = spec if isinstance(spec, EventSpec) else catalogue.ALIVE
    headers = headers_for(known, event_id="e", source="t", at=NOW, **more)
    if isinstance(spec, str):
        headers = [(name, spec.encode() if name == "ce_type" else text) for name, text in headers]
    return Received(PLACE, b"k", value, tuple(headers), at)


def a_report(spec: EventSpec, body: dict[str, Any]) -> Received:
    """Return a record of a report."""
    return received(spec, json.dumps(body).encode())


def a_slice(body: dict[str, Any] = RECORD, value: bytes | None = None, **headers: str) -> Received:
    """Return a record of a slice; `headers` are changed or added."""
    named = {"subject": f"{RUN}/extract/3", "term": "4", "seq": "2"} | headers
    return received(
        catalogue.SLICED,
        encode(body) if value is None else value,
        subject=named["subject"],
        extensions={"ce_fluxterm": named["term"], "ce_fluxseq": named["seq"]},
    )


def refusal(record: Received) -> tuple[type[Exception], str]:
    """Return the class and code with which a record is refused."""
    with pytest.raises((InvalidMessage, RunBroken)) as caught:
        read_report(record)
    return type(caught.value), caught.value.code


@pytest.mark.parametrize(
    ("spec", "body", "what"),
    [
        (catalogue.STARTED, NAMED | {"kind": "extract", "transform_version": "v"}, Started()),
        (catalogue.ALIVE, NAMED | {"kind": "gather", "counter": 1}, Alive()),
        (catalogue.PLANNED, PLANNED, Planned(b"\xab" * 32, 5, 9, (3, 2), "v")),
        (
            catalogue.FINISHED,
            NAMED | {"kind": "finalize", "last_seq": 0, "result_digest": "cd" * 32, "manifest_uri": "file:///m"},
            Finished(0, None, b"\xcd" * 32, "file:///m", 0, 0),
        ),
        (
            catalogue.FAILED,
            NAMED | {"kind": "extract", "last_seq": 1, "head": "ef" * 32, "code": "X_1", "cause": "input",
                     "transient": True},
            Failed(1, b"\xef" * 32, "X_1", "input", True),
        ),
    ],
    ids=["started", "alive", "planned", "finished", "failed"],
)  # fmt: skip
def test_a_report_is_read(spec: EventSpec, body: dict[str, Any], what: Any) -> None:
    """Item, term, worker, position and the broker's time come with what is said."""
    record = a_report(spec, body)
    item = ItemKey("nasa", UUID(RUN), body["kind"], 3)

    assert read_report(record) == Report(item, 4, "w-1", what, PLACE, NOW, spec.ce_type, record.value or b"")


def test_a_slice_is_read_from_its_record_and_named_by_its_headers() -> None:
    """The hash is that of the bytes as received; the term comes from its header."""
    record = a_slice()
    report = read_report(record)
    done = Slice(2, bytes.fromhex(sha256_hex(record.value or b"")), b"\xab" * 32, 5, Counts(3, 2, 1, 10, 5),
                 {"OBJECT_CORRUPT": 1})  # fmt: skip

    assert (report.item, report.term, report.worker) == (ItemKey("nasa", UUID(RUN), "extract", 3), 4, None)
    assert report.what == done


def test_a_topic_that_does_not_stamp_the_brokers_time_is_not_believed() -> None:
    """Stalls are measured on LogAppendTime: without it nothing is read."""
    record = replace(a_slice(), appended_at=None)

    assert refusal(record) == (InvalidMessage, Code.TIMESTAMP_NOT_BROKERS)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (received("flux.run.admitted.v1", b"{}"), Code.EVENT_TYPE_UNKNOWN),
        (received(catalogue.ALIVE, None), Code.VALUE_MISSING),
        (received(catalogue.ALIVE, b"no json"), Code.SCHEMA_VIOLATION),
        (received(catalogue.ALIVE, b"\xff"), Code.SCHEMA_VIOLATION),
        (Received(PLACE, None, b"{}", (), NOW), Code.HEADER_INVALID),
        (Received(PLACE, None, b"{}", (("ce_type", b"\xff"), ("ce_id", b"1")), NOW), Code.NOT_UTF8),
        (Received(PLACE, None, b"{}", (("ce_type", None), ("ce_id", b"1")), NOW), Code.HEADER_INVALID),
        (Received(PLACE, None, b"{}", (("ce_id", b"1"), ("ce_id", b"1")), NOW), Code.HEADER_INVALID),
        (Received(PLACE, None, b"{}", (("x", b""),) * 65, NOW), Code.HEADER_INVALID),
        (a_report(catalogue.ALIVE, NAMED | {"kind": "extract", "counter": 0}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.ALIVE, NAMED | {"kind": "extract", "counter": 1, "agency_id": "A"}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.ALIVE, NAMED | {"kind": "other", "counter": 1}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.ALIVE, NAMED | {"kind": "extract", "counter": 1, "worker": "a b"}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.ALIVE, NAMED | {"kind": "extract", "counter": 1, "number": 2**31}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.ALIVE, NAMED | {"kind": "extract", "counter": 1, "term": 2**31}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.PLANNED, PLANNED | {"objects": 6}), Code.COUNTS_MISMATCH),
        (a_report(catalogue.PLANNED, PLANNED | {"objects": 2**31 + 2, "partitions": [2**31, 2]}), Code.SCHEMA_VIOLATION),
        (a_report(catalogue.PLANNED, PLANNED | {"partitions": []}), Code.SCHEMA_VIOLATION),
        (a_slice(value=b""), Code.RECORD_INVALID),
        (a_slice(value=b"\xff"), Code.RECORD_INVALID),
        (a_slice(RECORD | {"more": 1}), Code.RECORD_INVALID),
        (a_slice(RECORD | {"read": 0}), Code.RECORD_INVALID),
        (a_slice(RECORD | {"partition": 2**31}), Code.SCHEMA_VIOLATION),
        (a_slice(RECORD | {"seq": 2**31}), Code.SCHEMA_VIOLATION),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_dead_letter_and_breaks_nothing(record: Received, code: Code) -> None:
    """InvalidMessage: nobody's run is touched, for nobody can be believed to have been meant."""
    kind, said = refusal(record)

    assert issubclass(kind, InvalidMessage)
    assert said == code


@pytest.mark.parametrize(
    "record",
    [
        a_slice(subject=f"{RUN}/extract/4"),
        a_slice(subject=f"{RUN}/gather/3"),
        a_slice(seq="3"),
        a_slice(seq="02"),
        a_slice(term=""),
        a_slice(term="0"),
        a_slice(term="-4"),
        a_slice(term="+4"),
        a_slice(term=" 4"),
        a_slice(term="4\n"),
        a_slice(term="1_0"),
        a_slice(term="٤"),
        a_slice(term="4.0"),
        a_slice(term="9" * 5000),
        a_slice(value=encode(RECORD) + b"\n"),
        a_slice(value=json.dumps(RECORD).encode()),
        a_slice(value=encode(RECORD).replace(b'"read":3', b'"read":3.0')),
        a_slice(value=encode(RECORD)[:-1] + b',"v":1}'),
        a_slice(RECORD | {"rejects": [{"code": "B_1", "count": 1}, {"code": "A_1", "count": 1}]}),
        a_slice(RECORD | {"rejects": [{"code": "A_1", "count": 1}, {"code": "A_1", "count": 1}]}),
        a_slice(RECORD | {"outputs": list(reversed(RECORD["outputs"]))}),  # type: ignore[call-overload]
        a_slice(RECORD | {"outputs": [RECORD["outputs"][0]] * 2}),  # type: ignore[index]
    ],
)
def test_a_slice_record_that_contradicts_itself_breaks_its_run(record: Received) -> None:
    """RunBroken, with the agency and the run that it names: whoever writes such a record is not trusted with the rest."""
    with pytest.raises(RunBroken) as caught:
        read_report(record)

    assert caught.value.code == Code.RECORD_INVALID
    assert caught.value.context == {"agency_id": "nasa", "run_id": RUN}


def test_a_slice_without_its_headers_breaks_its_run() -> None:
    """A record that names no term or seq outside itself cannot be placed."""
    headers = tuple((n, v) for n, v in a_slice().headers if not n.startswith("ce_flux"))

    assert refusal(replace(a_slice(), headers=headers)) == (RunBroken, Code.RECORD_INVALID)


def test_a_term_beyond_all_that_were_given_is_still_a_report() -> None:
    """It is judged (never dispatched, a dead letter), not believed and not a crash."""
    assert read_report(a_slice(term="9999999999")).term == 9_999_999_999


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_subject", "ce_fluxterm", "ce_fluxseq", "traceparent", "other"]),
        st.none()
        | st.binary(max_size=20)
        | st.sampled_from([spec.ce_type.encode() for spec in catalogue.PROGRESS.events]),
    ),
    max_size=8,
)


@given(HEADERS, st.none() | st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_the_reader_fail(headers: list[tuple[str, bytes | None]], value: bytes | None) -> None:
    """Whatever a record holds, the answer is a report or one of the two refusals."""
    try:
        found: object = read_report(Received(PLACE, None, value, tuple(headers), NOW))
    except (InvalidMessage, RunBroken) as problem:
        found = problem

    assert isinstance(found, Report) or (
        isinstance(found, InvalidMessage | RunBroken) and found.code in Code.__members__
    )


@given(st.sampled_from(sorted(RECORD)), VALUES)
def test_no_changed_record_is_read_as_another(name: str, value: Any) -> None:
    """A slice record with one member changed is refused, or read as exactly what its bytes say."""
    changed = json.dumps(RECORD | {name: value}, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode(
        errors="surrogatepass"
    )
    try:
        report = read_report(a_slice(value=changed))
    except (InvalidMessage, RunBroken):
        return

    assert isinstance(report.what, Slice)
    assert report.what.hash == bytes.fromhex(sha256_hex(changed))
    assert encode(json.loads(changed)) == changed
