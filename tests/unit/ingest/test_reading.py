"""Every refusal that a record earns by itself, with its code; and that no bytes whatever raise anything."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_common.auth import Binding, Verified
from flux_common.kernel.codes import Code
from flux_common.kernel.ids import sha256_hex
from flux_ingest.domain.model import Asked, DeadLettered, Kind, Rejected
from flux_ingest.handlers.reading import Reader

VERY_LONG = b"x" * (256 * 1024 + 1)


def test_a_good_request_is_asked(desk: Any) -> None:
    """A proven operator's request comes out with its digest, its single use and its body."""
    record = desk.record(desk.body())
    reading = desk.reader().read(record)

    assert isinstance(reading.finding, Asked)
    assert reading.finding.kind is Kind.RUN
    assert reading.finding.request_id == "r-1"
    assert reading.finding.sha256 == sha256_hex(record.value)
    assert reading.finding.single_use is not None
    assert reading.finding.single_use.expires_at > desk.now + timedelta(days=14)
    assert reading.body.content_type == "text"


def test_a_good_command_is_asked(desk: Any) -> None:
    """A command names itself and the run's request."""
    finding = desk.reader().read(desk.record(desk.command(), kind="command")).finding

    assert isinstance(finding, Asked)
    assert (finding.kind, finding.request_id, finding.command_id, finding.name) == (Kind.COMMAND, "r-1", "c-1", "c-1")


# What the producer sends → the code, whether the sender is proven, and the id that is told back.
def _cases(desk: Any) -> dict[str, tuple[Any, Code, bool, str | None]]:
    body, record, token = desk.body, desk.record, desk.token
    ago = desk.now - timedelta(hours=1)
    bad_uri = {"uri": "memory:///in/../../etc/"}
    return {
        "no token": (record(body(), headers={"authorization": b""}), Code.TOKEN_MISSING, False, "r-1"),
        "basic": (record(body(), headers={"authorization": b"Basic eDp5"}), Code.TOKEN_MISSING, False, "r-1"),
        "two tokens": (record(body(), extra=(("authorization", b"Bearer x"),)), Code.HEADER_INVALID, False, "r-1"),
        "huge token": (
            record(body(), headers={"authorization": b"Bearer " + b"x" * 9000}), Code.HEADER_INVALID, False, "r-1",
        ),
        "null token": (
            record(body(), headers={"authorization": b""}, extra=(("authorization", None),)),
            Code.HEADER_INVALID, False, "r-1",
        ),
        "two proofs": (
            record(body(), extra=(("flux-proof", b"x"), ("flux-proof", b"x"))), Code.HEADER_INVALID, False, "r-1",
        ),
        "garbage token": (record(body(), "a.b"), Code.TOKEN_MALFORMED, False, "r-1"),
        "not the broker's time": (record(body(), appended_at=None), Code.TIMESTAMP_NOT_BROKERS, True, "r-1"),
        "expired": (record(body(), token(issued_at=ago)), Code.TOKEN_EXPIRED, True, "r-1"),
        "another's key": (record(body(), token(signer="loc")), Code.KEY_UNKNOWN, False, "r-1"),
        "another's issuer": (record(body(), token("loc")), Code.AGENCY_MISMATCH, False, "r-1"),
        "a strange issuer": (record(body(), token(iss="https://evil.example")), Code.ISSUER_UNKNOWN, False, "r-1"),
        "bound to another body": (
            record(body(), token(request_value=b"other")), Code.BINDING_MISMATCH, True, "r-1",
        ),
        "a viewer": (record(body(), token(role="viewer")), Code.ROLE_FORBIDDEN, True, "r-1"),
        "null value": (record(None), Code.VALUE_MISSING, True, None),
        "too large": (record(VERY_LONG), Code.TOO_LARGE, True, None),
        "not UTF-8": (record(b'{"request_id":"\xff"}'), Code.NOT_UTF8, True, None),
        "not JSON": (record(b'{"request_id":"r-1"'), Code.JSON_INVALID, True, None),
        "a name twice": (record(b'{"request_id":"r-1","request_id":"r-2"}'), Code.JSON_INVALID, True, None),
        "too deep": (record(b'{"request_id":"r-1","x":' + b"[" * 100 + b"]" * 100 + b"}"), Code.JSON_TOO_DEEP, True, None),
        "schema": (record(body(content_type="films")), Code.SCHEMA_VIOLATION, True, "r-1"),
        "an unknown member": (record(body(tenant="loc")), Code.SCHEMA_VIOLATION, True, "r-1"),
        "no id": (record(body(request_id=None)), Code.SCHEMA_VIOLATION, True, None),
        "an id of another form": (record(body(request_id="r 1")), Code.SCHEMA_VIOLATION, True, None),
        "payload of another agency": (record(body(agency="loc")), Code.AGENCY_MISMATCH, True, "r-1"),
        "another key": (record(body(), key=b"r-2"), Code.KEY_MISMATCH, True, "r-1"),
        "no such use case yet": (record(body(use_case="vr")), Code.USE_CASE_NOT_AVAILABLE, True, "r-1"),
        "a source outside": (record(body(source={"uri": "s3://loc/box/"})), Code.SOURCE_NOT_ALLOWED, True, "r-1"),
        "a source that climbs": (record(body(source=bad_uri)), Code.SOURCE_NOT_ALLOWED, True, "r-1"),
        "a destination outside": (record(body(destination={"uri": "s3://loc/"})), Code.SOURCE_NOT_ALLOWED, True, "r-1"),
    }  # fmt: skip


@pytest.mark.parametrize("name", [
    "no token", "basic", "two tokens", "huge token", "null token", "two proofs", "garbage token",
    "not the broker's time", "expired", "another's key", "another's issuer", "a strange issuer",
    "bound to another body", "a viewer", "null value", "too large", "not UTF-8", "not JSON", "a name twice", "too deep",
    "schema", "an unknown member", "no id", "an id of another form", "payload of another agency", "another key",
    "no such use case yet", "a source outside", "a source that climbs", "a destination outside",
])  # fmt: skip
def test_a_refusal_has_its_code(desk: Any, name: str) -> None:
    """One thing is wrong, and the decision says which; whether the sender was proven decides whose log hears of it."""
    record, code, proven, request_id = _cases(desk)[name]
    reading = desk.reader().read(record)
    finding = reading.finding

    assert isinstance(finding, Rejected)
    assert (finding.code, finding.proven, finding.request_id) == (code, proven, request_id)
    assert (reading.sender is not None) is proven


def test_every_case_is_run(desk: Any) -> None:
    """The list of names above is the table's."""
    mark = next(m for m in test_a_refusal_has_its_code.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]

    assert list(_cases(desk)) == mark.args[1]


@pytest.mark.parametrize(
    ("headers", "extra", "code"),
    [
        ({"ce_type": b""}, (), Code.HEADER_INVALID),
        ({"ce_id": b""}, (), Code.HEADER_INVALID),
        ({"ce_specversion": b"0.3"}, (), Code.HEADER_INVALID),
        ({"ce_type": b"flux.run.accepted.v1"}, (), Code.EVENT_TYPE_UNKNOWN),
        ({"ce_type": b"\xff\xfe"}, (), Code.NOT_UTF8),
        ({"ce_source": b"\xff"}, (), Code.NOT_UTF8),
        ({}, (("ce_type", b"flux.run.requested.v1"),), Code.HEADER_INVALID),
        ({}, (("ce_subject", b"x" * 20_000),), Code.HEADER_INVALID),
        ({}, tuple((f"x-{n}", b"") for n in range(100)), Code.HEADER_INVALID),
    ],
)
def test_a_record_of_no_kind_is_put_aside(
    desk: Any, headers: dict[str, bytes], extra: tuple[tuple[str, bytes], ...], code: Code
) -> None:
    """Where nobody can tell what is asked for, nothing can be answered in its form."""
    finding = desk.reader().read(desk.record(desk.body(), headers=headers, extra=extra)).finding

    assert finding == DeadLettered(finding.position, code)


@pytest.mark.parametrize("extra", [(("x", b"\xff"),), (("\\xff", b"1"),), (("traceparent", b"\xff"),)])
def test_headers_that_mean_nothing_to_flux_do_not_matter(desk: Any, extra: tuple[tuple[str, bytes], ...]) -> None:
    """A header that Flux does not read may hold what it likes; a broken trace context is none."""
    assert isinstance(desk.reader().read(desk.record(desk.body(), extra=extra)).finding, Asked)


def test_the_trace_is_carried_on(desk: Any) -> None:
    """A well-formed trace context goes with whatever the record causes."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    good = desk.reader().read(desk.record(desk.body(), extra=(("traceparent", trace.encode()),)))
    refused = desk.reader().read(desk.record(None, extra=(("traceparent", trace.encode()),)))

    assert (good.traceparent, refused.traceparent) == (trace, trace)


def test_a_command_must_still_be_valid_when_it_is_judged(desk: Any) -> None:
    """Nobody wants yesterday's cancel; a request that arrived in time is as good as ever."""
    later = desk.now + timedelta(hours=2)
    command = desk.reader(now=later).read(desk.record(desk.command(), kind="command")).finding
    request = desk.reader(now=later).read(desk.record(desk.body())).finding

    assert (command.code, command.command_id) == (Code.TOKEN_EXPIRED_IN_QUEUE, "c-1")
    assert isinstance(request, Asked)


def test_an_unknown_key_is_told_of_the_topics_own_issuers_alone(desk: Any) -> None:
    """Else whoever invents a `kid` under another agency's issuer uses up the look-ups that this issuer's new key needs."""
    told: list[str] = []
    reader = Reader("nasa", desk.trust, desk.memory, desk.now, on_unknown_key=told.append)
    invented = [desk.token("loc", signer="nasa"), desk.token("nasa", signer="loc")]
    codes = [reader.read(desk.record(desk.body(), token)).finding.code for token in invented]

    assert codes == [Code.KEY_UNKNOWN, Code.KEY_UNKNOWN]
    assert told == ["https://issuer.nasa.example"]


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "retry"])
def test_a_viewer_commands_nothing(desk: Any, command: str) -> None:
    """The role table is asked for each command by its name."""
    record = desk.record(desk.command(command=command), desk.token(role="viewer"), kind="command")

    assert desk.reader().read(record).finding.code is Code.ROLE_FORBIDDEN


def test_a_suspended_agency_asks_for_nothing(desk: Any) -> None:
    """Its requests and its commands are refused."""
    run = desk.reader("esa").read(desk.record(desk.body(), agency_id="esa")).finding
    command = desk.reader("esa").read(desk.record(desk.command(), agency_id="esa", kind="command")).finding

    assert (run.code, command.code) == (Code.AGENCY_SUSPENDED, Code.AGENCY_SUSPENDED)


def test_an_agency_that_wants_bound_tokens_gets_no_others(desk: Any) -> None:
    """Unbound is refused; bound by claim is taken, and the finding's sender says so."""
    value = json.dumps(desk.body()).encode()
    unbound = desk.reader("nara").read(desk.record(value, agency_id="nara"))
    token = desk.token("nara", request_value=value)
    bound = desk.reader("nara").read(desk.record(value, token, agency_id="nara"))

    assert unbound.finding.code is Code.BINDING_REQUIRED
    assert isinstance(bound.sender, Verified)
    assert bound.sender.binding is Binding.CLAIM


def test_where_tokens_may_be_used_again_none_is_spent(desk: Any) -> None:
    """Development agencies may reuse tokens: nothing is remembered of them."""
    lenient = desk.trust.registry.agencies["esa"]

    assert lenient.reuse_unbound_tokens
    assert desk.reader("nasa").read(desk.record(desk.body())).finding.single_use is not None


def test_schema_violations_say_where_and_never_what(desk: Any) -> None:
    """The pointers of a refusal name places of the contract, not the stranger's values."""
    finding = desk.reader().read(desk.record(desk.body(content_type="top-secret", source={}))).finding

    assert set(finding.violations) == {("/content_type", "enum"), ("/source/uri", "required")}
    assert "top-secret" not in repr(finding)


VALUES = st.one_of(
    st.none(),
    st.binary(max_size=300),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["request_id", "command_id", "agency", "source", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
NAMES = st.sampled_from(["ce_id", "ce_type", "ce_specversion", "authorization", "flux-proof", "traceparent", "x"])
HEADERS = st.lists(
    st.tuples(NAMES, st.none() | st.binary(max_size=40) | st.just(b"flux.run.requested.v1")), max_size=12
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=VALUES,
    key=st.none() | st.binary(max_size=20),
    headers=HEADERS,
    good=st.booleans(),
    kind=st.sampled_from(["run", "command"]),
)
def test_no_bytes_raise_anything(
    desk: Any, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]], good: bool, kind: str
) -> None:
    """Whatever a producer sends, with a good token or a bad one, comes out as a finding of its own position."""
    record = desk.record(value, key=key, kind=kind)
    record = record if good else replace(record, headers=tuple(headers))
    finding = desk.reader().read(record).finding

    assert finding.position == record.position
    assert isinstance(finding, Asked | Rejected | DeadLettered)
