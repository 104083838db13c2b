"""The corpora at Flux's own edge: as records that ingest's reader reads, by a registry and keys from files.

What the parts make of each case is told in test_corpora and test_wycheproof. Here each case takes the way of a stranger's
record, from headers and bytes to a finding, and nothing but a verdict comes out.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flux_client.development import DevelopmentAgency, write_development_registry
from flux_client.keys import load_key, private_key_path
from flux_client.tokens import IssuerKey
from flux_common.auth import Trust, VerifiedTokens, load_trust
from flux_common.auth import token as token_module
from flux_common.auth.compact import decode_base64url
from flux_common.auth.faults import ConfigurationRefused
from flux_common.auth.jwk import ALGORITHMS
from flux_common.auth.keyset import read_set, ring_of
from flux_common.kernel.codes import Code
from flux_common.kernel.positions import Received, TopicPartition
from flux_ingest.domain.model import Rejected
from flux_ingest.handlers.reading import Reader

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NASA = "https://issuer.nasa.example"
READING = {Code.JSON_INVALID, Code.JSON_TOO_DEEP, Code.NOT_UTF8}
TOKEN_CODES = {
    Code.TOKEN_MISSING,
    Code.TOKEN_MALFORMED,
    Code.TOKEN_HEADER_REFUSED,
    Code.HEADER_INVALID,
    Code.KEY_UNKNOWN,
    Code.ALGORITHM_REFUSED,
    Code.SIGNATURE_INVALID,
}
ACCEPTED = {18, 33, 259, 260, 261, 262, 263, 272, 273, 274, 275, 287, 288, 378}  # as in test_wycheproof


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trust, str]:
    """One agency, and a token of its that serves any record."""
    folder = tmp_path_factory.mktemp("edge")
    path = write_development_registry(folder, [DevelopmentAgency("nasa", "NASA")])
    document = yaml.safe_load(path.read_text())
    document["agencies"][0]["issuers"][NASA]["algorithms"] = sorted(ALGORITHMS)
    path.write_text(yaml.safe_dump(document))
    token = IssuerKey(load_key(private_key_path(folder, "nasa"))).token("nasa", NOW)
    return load_trust(path, NOW), token


def code(trust: Trust, token: bytes, value: bytes) -> Code:
    """Return the code with which ingest refuses a record of this token and value."""
    headers = {
        "ce_specversion": b"1.0",
        "ce_id": b"e-1",
        "ce_source": b"corpus",
        "ce_type": b"flux.run.requested.v1",
        "authorization": b"Bearer " + token,
    }
    position = TopicPartition("flux.nasa.run.requests.v1", 0).at(0)
    record = Received(position, b"r-1", value, tuple(headers.items()), NOW)
    finding = Reader("nasa", trust, VerifiedTokens(), NOW).read(record).finding
    assert isinstance(finding, Rejected)
    return finding.code


def test_what_is_not_json_is_refused_as_such(corpora: Path, trust: tuple[Trust, str]) -> None:
    """JSONTestSuite: every `n_` file is refused by a reading code; every other by one, or because it is no request."""
    known, token = trust
    with tarfile.open(corpora / "json-parsing/test_parsing.tar.gz") as archive:
        cases = {Path(one.name).name: file.read() for one in archive if (file := archive.extractfile(one))}
    found = {name: code(known, token.encode(), data) for name, data in cases.items()}

    assert len(found) > 280
    assert {name: one for name, one in found.items() if name.startswith("n_") and one not in READING} == {}
    assert {name: one for name, one in found.items() if one not in READING | {Code.SCHEMA_VIOLATION}} == {}
    assert Counter(found.values())[Code.SCHEMA_VIOLATION] > 90


def test_no_foreign_signature_is_a_token(
    corpora: Path, trust: tuple[Trust, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wycheproof, where the case's key is our issuer's, and any payload counts as good claims of that issuer.

    So nothing but the form, the key and the signature decides. The good ones are the sender's then, and ask for nothing;
    without a look at the signature there are more of them.
    """
    known, token = trust
    claims = json.loads(decode_base64url(token.split(".")[1].encode()))
    monkeypatch.setattr(token_module, "read_payload", lambda _data: claims)
    found = _verdicts(corpora, known)

    assert {case for case, one in found.items() if one not in TOKEN_CODES} == ACCEPTED
    assert {found[case] for case in ACCEPTED} == {Code.SCHEMA_VIOLATION}
    assert Counter(found.values())[Code.SIGNATURE_INVALID] > 250

    monkeypatch.setattr(token_module, "verify_signature", lambda _compact, _key: None)
    assert Counter(_verdicts(corpora, known).values())[Code.SCHEMA_VIOLATION] > 250


def _verdicts(corpora: Path, trust: Trust) -> dict[int, Code]:
    """Return what ingest makes of each case."""
    groups = json.loads((corpora / "jws/json_web_signature_test.json").read_text())["testGroups"]
    found = {}
    for group in groups:
        theirs = _with_key(trust, group.get("public") or group["private"])
        for case in group["tests"]:
            jws = case["jws"] if isinstance(case["jws"], str) else json.dumps(case["jws"])
            found[case["tcId"]] = code(theirs, jws.encode(), b"{}")
    assert len(found) == 401
    return found


def _with_key(trust: Trust, jwk: dict[str, object]) -> Trust:
    """Return the trust in which the corpus' key is the issuer's, if it may be one at all."""
    try:
        key_set = read_set(NASA, json.dumps({"keys": [jwk]}).encode(), NOW)
    except ConfigurationRefused:
        return trust
    return replace(trust, keys=ring_of(trust.registry, {NASA: key_set}))
