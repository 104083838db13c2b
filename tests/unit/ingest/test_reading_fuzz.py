"""Whatever arrives on a requests topic, the reader finds something: no header, token, key or body makes it raise.

Through the whole of `Reader.read`: the token before the body and the body before the token, good parts with one bad one,
and nothing good at all.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_common.kernel.positions import Received, TopicPartition
from flux_ingest.domain.model import Asked, DeadLettered, Finding, Rejected

FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
AT = TopicPartition("flux.nasa.run.requests.v1", 0).at(0)

NAMES = (
    *(
        "ce_id",
        "ce_type",
        "ce_specversion",
        "ce_source",
        "ce_subject",
        "ce_time",
        "ce_fluxterm",
        "traceparent",
        "content-type",
    ),
    *("authorization", "flux-proof", "Authorization", "\\xff", "", "x" * 300),
)
TYPES = (b"flux.run.requested.v1", b"flux.run.command-requested.v1", b"flux.run.accepted.v1", b"\xff", b"")
TEXTS = st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
BYTES = st.binary(max_size=80) | TEXTS | st.sampled_from([*TYPES, b"1.0", b"Bearer ", b"Bearer a.b.c", b"x" * 20_000])
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=12), st.none() | BYTES), max_size=80)
SCALARS = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=30)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    ["request_id", "agency", "source", "content_type", "use_case", "destination", "partitioning", "on_reject", "options",
     "labels", "command_id", "command", "reason", "x"]
)  # fmt: skip
DOCUMENTS = st.dictionaries(MEMBERS, VALUES, max_size=6).map(lambda body: json.dumps(body).encode())


def judged(desk: Any, record: Received) -> Finding:
    """Return what is found; anything that is raised fails the test."""
    found: Finding = desk.reader().read(record).finding
    assert isinstance(found, Asked | Rejected | DeadLettered)
    assert found.position == AT
    return found


@FUZZ
@given(key=st.none() | BYTES, value=st.none() | BYTES | DOCUMENTS, headers=HEADERS, stamped=st.booleans())
def test_any_record_has_a_finding(
    desk: Any, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], stamped: bool
) -> None:
    """Nothing of it is good but by chance, and chance makes no token."""
    record = Received(AT, key, value, tuple(headers), desk.now if stamped else None)

    assert not isinstance(judged(desk, record), Asked)


@FUZZ
@given(extra=HEADERS.filter(bool), place=st.integers(0, 5))
def test_any_header_beside_good_ones(desk: Any, extra: list[tuple[str, bytes | None]], place: int) -> None:
    """What repeats a header of the envelope or of security is refused wherever it stands; junk changes nothing."""
    good = desk.record(desk.body())
    found = judged(desk, desk.record(desk.body(), headers={}, extra=tuple(extra)))
    moved = judged(
        desk, Received(AT, good.key, good.value, (*good.headers[:place], *extra, *good.headers[place:]), desk.now)
    )
    names = {name for name, _ in extra}
    repeats = names & {"ce_id", "ce_type", "ce_specversion", "authorization"}

    assert type(moved) is type(found)
    assert not (repeats and isinstance(found, Asked))


@FUZZ
@given(
    value=BYTES | DOCUMENTS | VALUES.map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from(["run", "command"]),
)
def test_any_body_under_a_good_token(desk: Any, value: bytes, kind: str) -> None:
    """A proven sender's junk is refused with a code, and told as that sender's."""
    found = judged(desk, desk.record(value, kind=kind))

    assert isinstance(found, Rejected)
    assert found.proven


@FUZZ
@given(changes=st.dictionaries(MEMBERS, VALUES, min_size=1, max_size=3), key=st.none() | BYTES)
def test_any_change_of_a_good_request(desk: Any, changes: dict[str, Any], key: bytes | None) -> None:
    """What is asked for after all has the id of its body, and that of its key, if it has one."""
    body = desk.body() | changes
    found = judged(desk, desk.record(json.dumps(body).encode(), key=key))
    if isinstance(found, Asked):
        assert found.request_id == body["request_id"]
        assert key in (None, found.request_id.encode())


@FUZZ
@given(proof=BYTES, confined=st.booleans(), seconds=st.integers(-4_000, 4_000))
def test_any_proof_and_any_time(desk: Any, proof: bytes, confined: bool, seconds: int) -> None:
    """Junk for a proof never proves; a good token is good for as long as it says."""
    token = desk.token(issued_at=desk.now + timedelta(seconds=seconds))
    found = judged(desk, desk.record(desk.body(), token, extra=(("flux-proof", proof),) if confined else ()))

    assert not (confined and isinstance(found, Asked))
    assert confined or isinstance(found, Asked) is (-630 < seconds <= 30)
