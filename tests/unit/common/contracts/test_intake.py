"""Intake answers whatever it is given with a request or a verdict, in the order of its checks, and shows no values."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_common.contracts import intake
from flux_common.contracts.catalogue import COMMAND_REQUESTED, RUN_REQUESTED
from flux_common.contracts.intake import IntakeLimits, judge, parse, read_request, readable_request_id
from flux_common.contracts.requests import CommandRequested, RunRequested
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import ValidationFailed

RUN: dict[str, Any] = {
    "request_id": "nara-2026-000017",
    "source": {"uri": "s3://nara-scans/box-17/"},
    "content_type": "images",
    "use_case": "ai-training",
    "destination": {"uri": "s3://nara-datasets/box-17/"},
}
COMMAND = {"request_id": "nara-2026-000017", "command_id": "c-1", "command": "cancel", "reason": "wrong box"}


def refusal(value: bytes | None, ce_type: str = RUN_REQUESTED.ce_type) -> ValidationFailed:
    """Return the verdict on `value`, which must be one."""
    with pytest.raises(ValidationFailed) as caught:
        read_request(ce_type, value)
    return caught.value


def run(**changes: Any) -> bytes:
    """Return the bytes of a good run request with some members changed."""
    return json.dumps(RUN | changes).encode()


def test_a_run_request_is_read() -> None:
    """A good request becomes its model, with the defaults filled in."""
    expected = RunRequested.model_validate(RUN)

    assert read_request("flux.run.requested.v1", run()) == expected
    assert (expected.partitioning.objects_max, expected.on_reject.policy) == (500, "skip")


def test_a_command_is_read() -> None:
    """A good command becomes its model."""
    read = read_request("flux.run.command-requested.v1", json.dumps(COMMAND).encode())

    assert read == CommandRequested.model_validate(COMMAND)


def test_an_unknown_type_is_refused_before_the_value_is_read() -> None:
    """Only the requests topic's own events are read."""
    assert refusal(b"\xff", "flux.run.accepted.v1").code == Code.EVENT_TYPE_UNKNOWN


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(None, Code.VALUE_MISSING, id="no value"),
        pytest.param(b"", Code.JSON_INVALID, id="empty"),
        pytest.param(b"\xff" * (256 * 1024 + 1), Code.TOO_LARGE, id="length is judged before the encoding"),
        pytest.param(b'{"a": "\xff' + b"[" * 65, Code.NOT_UTF8, id="encoding is judged before the depth"),
        pytest.param(b'"\xed\xa0\x80"', Code.NOT_UTF8, id="a surrogate in UTF-8"),
        pytest.param(b'"\xc0\x80"', Code.NOT_UTF8, id="an overlong NUL"),
        pytest.param("{}".encode("utf-16"), Code.NOT_UTF8, id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf{}", Code.JSON_INVALID, id="a byte order mark"),
        pytest.param(b"[" * 65 + b"]" * 65, Code.JSON_TOO_DEEP, id="65 levels"),
        pytest.param(b'{"":' * 65, Code.JSON_TOO_DEEP, id="65 levels of objects, never closed"),
        pytest.param(b"[" + b"1," * 2048 + b"1]", Code.JSON_TOO_DEEP, id="4,099 tokens"),
        pytest.param(b'{"a": 1, "a": 1}', Code.JSON_INVALID, id="a repeated name"),
        pytest.param(b'{"a": 1, "\\u0061": 1}', Code.JSON_INVALID, id="a repeated name, once escaped"),
        pytest.param(b'[{"b": {"a": 1, "a": 2}}]', Code.JSON_INVALID, id="a repeated name inside"),
        pytest.param(b"NaN", Code.JSON_INVALID, id="NaN"),
        pytest.param(b"[-Infinity]", Code.JSON_INVALID, id="-Infinity"),
        pytest.param(b"1e309", Code.JSON_INVALID, id="exponent 309"),
        pytest.param(b"1e-309", Code.JSON_INVALID, id="exponent -309"),
        pytest.param(b"0e400", Code.JSON_INVALID, id="exponent 400 of zero"),
        pytest.param(b"99e308", Code.JSON_INVALID, id="not finite"),
        pytest.param(b"1E+" + b"9" * 9000, Code.JSON_INVALID, id="an exponent of 9,000 digits"),
        pytest.param(b"9223372036854775808", Code.JSON_INVALID, id="2^63"),
        pytest.param(b"-9223372036854775809", Code.JSON_INVALID, id="-2^63-1"),
        pytest.param(b"1" * 9000, Code.JSON_INVALID, id="an integer of 9,000 digits"),
        pytest.param(b"{} {}", Code.JSON_INVALID, id="two documents"),
        pytest.param(b'"\t"', Code.JSON_INVALID, id="a control character"),
        pytest.param(b'"\\u0000"', Code.JSON_INVALID, id="NUL in a text"),
        pytest.param(b'{"\\u0000": 1}', Code.JSON_INVALID, id="NUL in a name"),
        pytest.param(b'"\\ud800"', Code.JSON_INVALID, id="a lone high surrogate"),
        pytest.param(b'["\\udc00\\ud800"]', Code.JSON_INVALID, id="surrogates in the wrong order"),
        pytest.param(b'"' + b"x" * 65537 + b'"', Code.JSON_INVALID, id="a text of 64 KiB and one byte"),
        pytest.param('"{}"'.format("é" * 32769).encode(), Code.JSON_INVALID, id="64 KiB counts bytes"),
        pytest.param(b'{"' + b"n" * 257 + b'": 1}', Code.JSON_INVALID, id="a name of 257 bytes"),
        pytest.param(b"[]", Code.SCHEMA_VIOLATION, id="no object"),
        pytest.param(b"{}", Code.SCHEMA_VIOLATION, id="nothing in it"),
    ],
)
def test_what_is_refused(value: bytes | None, code: Code) -> None:
    """Each fault has its code, the first check that meets it decides, and codes are all that is said."""
    verdict = refusal(value)

    assert (verdict.code, verdict.__cause__) == (code, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"[" * 64 + b"]" * 64, None, id="64 levels"),
        pytest.param(b'"' + b"[" * 500 + b'"', "[" * 500, id="brackets in a text do not nest"),
        pytest.param(b'"\\"' + b"[" * 500 + b'"', '"' + "[" * 500, id="nor after an escaped quote"),
        pytest.param(b"9223372036854775807", 2**63 - 1, id="2^63-1"),
        pytest.param(b"-9223372036854775808", -(2**63), id="-2^63"),
        pytest.param(b"1e308", 1e308, id="exponent 308"),
        pytest.param(b"1e-00308", 1e-308, id="exponent -308 with zeros"),
        pytest.param(b'"\\ud83d\\ude00"', "😀", id="a surrogate pair"),
        pytest.param(b'"' + b"x" * 65536 + b'"', "x" * 65536, id="a text of 64 KiB"),
        pytest.param(b'{"' + b"n" * 256 + b'": 1}', {"n" * 256: 1}, id="a name of 256 bytes"),
        pytest.param(b" \t\r\n{} \n", {}, id="white space around"),
    ],
)
def test_what_is_just_allowed(value: bytes, expected: Any) -> None:
    """The limits themselves are inside."""
    parsed = parse(value)

    assert expected is None or parsed == expected


def test_the_longest_value_is_read() -> None:
    """256 KiB is inside: white space can fill it."""
    assert read_request("flux.run.requested.v1", run().ljust(256 * 1024)) == RunRequested.model_validate(RUN)


@pytest.mark.parametrize(
    ("changes", "violations"),
    [
        ({"content_type": "video"}, [("/content_type", "enum")]),
        ({"source": {}}, [("/source/uri", "required")]),
        ({"tenant": "nasa"}, [("", "additionalProperties")]),
        ({"source": {"uri": "s3://b/", "include": ["*", ""]}}, [("/source/include/1", "minLength")]),
        ({"request_id": "x\n"}, [("/request_id", "pattern")]),
        ({"agency": 7}, [("/agency", "type")]),
        ({"agency": "NASA"}, [("/agency", "pattern")]),
        ({"options": {"n": [1]}}, [("/options/n", "type")]),
        ({"options": {"n": 2**53}}, [("/options/n", "maximum")]),
        ({"labels": {"A key/of ~strangers": 1}}, [("/labels", "propertyNames"), ("/labels", "type")]),
    ],
)
def test_a_violation_names_place_and_keyword(changes: dict[str, Any], violations: list[tuple[str, str]]) -> None:
    """Pointers lead to the place as far as its names are ours, keywords say what was broken there."""
    verdict = refusal(run(**changes))

    assert (verdict.code, set(verdict.violations)) == (Code.SCHEMA_VIOLATION, set(violations))


def test_violations_are_at_most_32() -> None:
    """However much is wrong, the list stays short."""
    assert len(refusal(run(source={"uri": "s3://b/", "include": [""] * 60})).violations) == 32


def test_a_byte_order_mark_is_named() -> None:
    """Its writer cannot see it, so the message says what is wrong."""
    assert "byte order mark" in refusal(b"\xef\xbb\xbf" + run()).message


def test_no_value_is_shown_anywhere() -> None:
    """Neither the verdict nor the traceback that a log might print holds what the stranger wrote."""
    secret = "hunter2-canary"
    values = [
        run(content_type=secret, labels={secret.upper(): secret}, agency=secret * 9),
        f'{{"{secret}": 1, "{secret}": 1}}'.encode(),
        f'"{secret}'.encode(),
        secret.encode() + b"\xff",
    ]
    shown = "".join(
        "".join(traceback.format_exception(verdict, chain=True)) + repr(verdict.violations) + repr(verdict.context)
        for verdict in map(refusal, values)
    )

    assert secret.lower() not in shown.lower()


def test_an_exhausted_stack_is_a_verdict() -> None:
    """Were the limits wider than the reader's stack, the value would be refused all the same."""
    with pytest.raises(ValidationFailed) as refused:
        parse(b"[" * 100_000 + b"]" * 100_000, IntakeLimits(depth_max=10**6, tokens_max=10**6))

    assert refused.value.code == Code.JSON_TOO_DEEP


@pytest.mark.parametrize(
    ("limits", "value", "code"),
    [
        (IntakeLimits(value_bytes_max=7), b'{"a": 1}', Code.TOO_LARGE),
        (IntakeLimits(depth_max=2), b"[[[]]]", Code.JSON_TOO_DEEP),
        (IntakeLimits(tokens_max=4), b"[1,2]", Code.JSON_TOO_DEEP),
        (IntakeLimits(string_bytes_max=1), '"é"'.encode(), Code.JSON_INVALID),
        (IntakeLimits(name_bytes_max=1), b'{"ab": 1}', Code.JSON_INVALID),
    ],
    ids=["bytes", "depth", "tokens", "string", "name"],
)
def test_a_limit_can_be_set(limits: IntakeLimits, value: bytes, code: Code) -> None:
    """What the standard limits let pass is refused where an installation has set one lower."""
    parse(value)
    with pytest.raises(ValidationFailed) as refused:
        parse(value, limits)

    assert refused.value.code == code


@pytest.mark.parametrize("problem", [MemoryError, OverflowError])
def test_exhaustion_is_a_verdict(monkeypatch: pytest.MonkeyPatch, problem: type[Exception]) -> None:
    """What a reader raises when it runs out of something is a verdict on the value."""

    class Exhausted:
        def decode(self, _text: str) -> Any:
            raise problem

    monkeypatch.setattr(intake, "_DECODER", Exhausted())

    assert refusal(b"{}").code == Code.JSON_TOO_DEEP


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text('[]{}",:\\eE+-.0123456789truefalsn \n\x00é', max_size=80)))
def test_any_bytes_end_in_a_verdict(value: bytes | str) -> None:
    """No bytes raise anything but a verdict."""
    verdict = refusal(value if isinstance(value, bytes) else value.encode())

    assert verdict.code in set(Code)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('abc"\\[{', max_size=5), inner, max_size=4),
        max_leaves=30,
    )
)
def test_strict_json_is_read_as_it_was_written(document: Any) -> None:
    """Whatever is within the limits comes back as it was."""
    assert parse(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"request_id": "a.b:c-1", "junk": 1}, "a.b:c-1"),
        ({"request_id": "a\n"}, None),
        ({"request_id": 17}, None),
        ({}, None),
        (["request_id"], None),
        (None, None),
    ],
)
def test_the_request_id_of_a_broken_request(document: Any, expected: str | None) -> None:
    """An id can be read from a request that breaks its schema, if it is of its own grammar."""
    assert readable_request_id(document) == expected


def test_judge_reads_any_event() -> None:
    """The judgement is not tied to one event."""
    assert isinstance(judge(COMMAND_REQUESTED, COMMAND), CommandRequested)
