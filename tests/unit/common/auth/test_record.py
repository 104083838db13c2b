"""The security headers of a record: one of each, of bounded size, or refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from flux_common.auth import RecordContext, TokenRefused, authorization_of, context_of
from flux_common.auth.record import bearer_token
from flux_common.kernel.codes import Code
from flux_common.kernel.positions import Received, TopicPartition

AT = datetime(2026, 3, 1, tzinfo=UTC)


def received(*headers: tuple[str, bytes | None], value: bytes | None = b"{}") -> Received:
    """Return a record with these headers."""
    return Received(TopicPartition("flux.nasa.run.requests.v1", 0).at(7), b"r-1", value, headers, AT)


def test_the_token_is_taken_from_the_one_header() -> None:
    """The header's value, without its scheme."""
    value = authorization_of(received(("traceparent", b"x"), ("authorization", b"Bearer a.b.c")))

    assert bearer_token(value) == b"a.b.c"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], Code.TOKEN_MISSING),
        ([("Authorization", b"Bearer a")], Code.TOKEN_MISSING),
        ([("authorization", None)], Code.HEADER_INVALID),
        ([("authorization", b"")], Code.HEADER_INVALID),
        ([("authorization", b"Bearer a"), ("authorization", b"Bearer a")], Code.HEADER_INVALID),
        ([("authorization", b"Bearer " + b"a" * 8193)], Code.HEADER_INVALID),
    ],
)
def test_a_missing_repeated_or_oversized_authorization_is_refused(
    headers: list[tuple[str, bytes | None]], code: Code
) -> None:
    """Two tokens are none: nobody chooses between them."""
    with pytest.raises(TokenRefused) as refused:
        authorization_of(received(*headers))

    assert code is refused.value.reason


def test_the_context_is_the_record_and_the_agency_of_its_topic() -> None:
    """What verification needs, with the digest of the exact value."""
    context = context_of(received(("flux-proof", b"p")), "nasa", is_command=True, payload_agency="nasa")

    assert context == RecordContext(
        topic="flux.nasa.run.requests.v1",
        key=b"r-1",
        value_sha256=hashlib.sha256(b"{}").digest(),
        appended_at=AT,
        agency_id="nasa",
        payload_agency="nasa",
        is_command=True,
        proof=b"p",
    )


def test_a_record_without_a_value_has_the_digest_of_nothing() -> None:
    """It is refused elsewhere (VALUE_MISSING); here it must not crash."""
    assert context_of(received(value=None), "nasa").value_sha256 == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("values", [[b""], [None], [b"p", b"p"], [b"p" * 8193]])
def test_a_repeated_empty_or_oversized_proof_is_refused(values: list[bytes | None]) -> None:
    """A proof is there once and whole, or not at all."""
    with pytest.raises(TokenRefused) as refused:
        context_of(received(*(("flux-proof", value) for value in values)), "nasa")

    assert refused.value.reason is Code.HEADER_INVALID
