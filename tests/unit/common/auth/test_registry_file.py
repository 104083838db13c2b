"""The agency registry's file: what it may say, and that every fault is told with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flux_common.auth import ConfigurationRefused, Retention, Role, load_registry
from flux_common.auth.key_url import KeyUrl, read_key_url
from flux_common.auth.registry_file import REGISTRY_BYTES_MAX
from flux_common.contracts.access import AGENCY_QUOTA
from flux_common.kernel.codes import Code

ISSUER = {"jwks": "nasa.jwks.json", "algorithms": ["ES256"], "audience": "flux"}


def entry(**changes: Any) -> dict[str, Any]:
    """Return a minimal good entry, with changes; a value of None takes the name away."""
    good = {
        "id": "nasa",
        "name": "NASA",
        "issuers": {"https://issuer.nasa.example": ISSUER},
        "source_prefixes": ["s3://nasa-scans/"],
        "destination_prefixes": ["s3://nasa-datasets/"],
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the registry lies, with a key set file beside it."""
    (tmp_path / "nasa.jwks.json").write_text("{}")
    return tmp_path / "agencies.yaml"


def write(path: Path, *entries: Any, **more: Any) -> Path:
    """Write a registry of these entries, as JSON: YAML's writer would make aliases of what stands twice."""
    path.write_text(json.dumps({"version": 1, "agencies": list(entries), **more}))
    return path


def faults(path: Path) -> list[str]:
    """Return the faults for which the file is refused."""
    with pytest.raises(ConfigurationRefused) as refused:
        load_registry(path)
    assert refused.value.code == Code.SETTINGS_INVALID
    return [str(fault) for fault in refused.value.faults]


def test_a_minimal_entry_has_the_defaults_of_the_design(path: Path) -> None:
    """Windows 32 and 128, 600 rejects a minute, binding required, no unbound reuse."""
    agency = load_registry(write(path, entry())).agencies["nasa"]

    assert (agency.run_window, agency.agency_window, agency.rejects_per_minute) == (32, 128, 600)
    assert (
        agency.binding_required,
        agency.reuse_unbound_tokens,
        agency.suspended,
        agency.audit_required,
    ) == (True, False, False, False)
    assert dict(agency.token_life_s_max) == {Role.ADMIN: 900, Role.OPERATOR: 3600, Role.VIEWER: 3600}
    assert Retention(365, 90, 7) == agency.retention
    assert agency.queue_age_max_s is None
    assert agency.quota == AGENCY_QUOTA


def test_everything_that_is_said_is_kept(path: Path) -> None:
    """Each value of the file arrives in the agency."""
    said = entry(
        suspended=True,
        binding_required=False,
        reuse_unbound_tokens=True,
        token_life_s_max={"operator": 60},
        queue_age_max_s=3600,
        run_window=2,
        agency_window=4,
        rejects_per_minute=10,
        retention={"checkpoints_keep_days": 30, "events_keep_days": 10, "audit_keep_years": 3},
        audit_required=True,
        quota={"producer_byte_rate": 300_000},
    )
    agency = load_registry(write(path, said)).agencies["nasa"]

    assert agency.suspended
    assert agency.reuse_unbound_tokens
    assert not agency.binding_required
    assert dict(agency.token_life_s_max) == {Role.OPERATOR: 60}
    assert (
        agency.queue_age_max_s,
        agency.run_window,
        agency.agency_window,
        agency.rejects_per_minute,
    ) == (3600, 2, 4, 10)
    assert Retention(30, 10, 3) == agency.retention
    assert agency.audit_required
    assert agency.quota == replace(AGENCY_QUOTA, producer_byte_rate=300_000)
    assert agency.may_read("s3://nasa-scans/box/")
    assert not agency.may_write("s3://nasa-scans/box/")
    assert agency.may_write("s3://nasa-datasets/box/")


def test_look_ups_know_what_is_registered_and_nothing_else(path: Path) -> None:
    """The id and the `iss` are exact; the key set's path is relative to the file."""
    registry = load_registry(write(path, entry()))
    issuer = registry.issuer("https://issuer.nasa.example")

    assert registry.agency("nasa") is registry.agencies["nasa"]
    assert registry.agency("esa") is None
    assert registry.issuer("https://issuer.nasa.example/") is None
    assert issuer is not None
    assert (path.parent / "nasa.jwks.json", frozenset({"ES256"}), "flux", frozenset({"nasa"})) == (
        issuer.jwks,
        issuer.algorithms,
        issuer.audience,
        issuer.agencies,
    )


def test_a_registry_cannot_be_changed(path: Path) -> None:
    """It is a value: nobody adds an agency behind the file's back."""
    registry = load_registry(write(path, entry()))

    with pytest.raises(TypeError):
        registry.agencies["esa"] = registry.agencies["nasa"]  # type: ignore[index]


def test_an_issuer_belongs_to_the_agencies_that_list_it(path: Path) -> None:
    """Two agencies may share an issuer if they say the same of it."""
    registry = load_registry(write(path, entry(), entry(id="jpl")))

    assert registry.issuers["https://issuer.nasa.example"].agencies == {"nasa", "jpl"}


def test_two_answers_about_one_issuer_are_a_fault(path: Path) -> None:
    """One `iss` has one key set, one audience and one list of algorithms."""
    other = {"https://issuer.nasa.example": {**ISSUER, "audience": "other"}}

    assert faults(write(path, entry(), entry(id="jpl", issuers=other))) == [
        'agencies[1].issuers["https://issuer.nasa.example"]: differs from the one in agencies[0]'
    ]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"id": "NASA"}, "agencies[0].id"),
        ({"id": "n"}, "agencies[0].id"),
        ({"id": "na.sa"}, "agencies[0].id"),
        ({"id": "nasa\n"}, "agencies[0].id"),
        ({"id": "a" * 64}, "agencies[0].id"),
        ({"id": None}, "agencies[0].id"),
        ({"name": ""}, "agencies[0].name"),
        ({"name": 7}, "agencies[0].name"),
        ({"suspended": "no"}, "agencies[0].suspended"),
        ({"suspended": 0}, "agencies[0].suspended"),
        ({"issuers": {}}, "agencies[0].issuers"),
        ({"issuers": None}, "agencies[0].issuers"),
        ({"issuers": {"a b": ISSUER}}, 'agencies[0].issuers["a b"]["[key]"]'),
        ({"issuers": {"iss": {**ISSUER, "algorithms": ["HS256"]}}}, "agencies[0].issuers.iss.algorithms[0]"),
        ({"issuers": {"iss": {**ISSUER, "algorithms": []}}}, "agencies[0].issuers.iss.algorithms"),
        ({"issuers": {"iss": {**ISSUER, "audience": ""}}}, "agencies[0].issuers.iss.audience"),
        ({"issuers": {"iss": {**ISSUER, "audience": ["flux"]}}}, "agencies[0].issuers.iss.audience"),
        ({"issuers": {"iss": {**ISSUER, "kid": "x"}}}, "agencies[0].issuers.iss.kid"),
        ({"issuers": {"iss": {**ISSUER, "jwks": "none.json"}}}, 'agencies[0].issuers["iss"].jwks'),
        ({"issuers": {"iss": {**ISSUER, "jwks": "http://x.example/jwks"}}}, 'agencies[0].issuers["iss"].jwks'),
        (
            {"issuers": {"iss": {**ISSUER, "retired_at": {"a b": "2026-01-01T00:00:00Z"}}}},
            'agencies[0].issuers.iss.retired_at["a b"]["[key]"]',
        ),
        (
            {"issuers": {"iss": {**ISSUER, "retired_at": {"k": "2026-01-01T00:00:00"}}}},
            "agencies[0].issuers.iss.retired_at.k",
        ),
        ({"issuers": {"iss": {**ISSUER, "retired_at": {"k": 1767225600}}}}, "agencies[0].issuers.iss.retired_at.k"),
        ({"issuers": {"iss": {**ISSUER, "retired_at": {"k": "soon"}}}}, "agencies[0].issuers.iss.retired_at.k"),
        ({"binding_required": 1}, "agencies[0].binding_required"),
        ({"reuse_unbound_tokens": True}, "agencies[0]"),
        ({"token_life_s_max": {}}, "agencies[0].token_life_s_max"),
        ({"token_life_s_max": {"root": 60}}, 'agencies[0].token_life_s_max.root["[key]"]'),
        ({"token_life_s_max": {"admin": 0}}, "agencies[0].token_life_s_max.admin"),
        ({"token_life_s_max": {"admin": 1e3}}, "agencies[0].token_life_s_max.admin"),
        ({"token_life_s_max": {"admin": 86400 * 8}}, "agencies[0].token_life_s_max.admin"),
        ({"queue_age_max_s": 0}, "agencies[0].queue_age_max_s"),
        ({"run_window": 0}, "agencies[0].run_window"),
        ({"run_window": True}, "agencies[0].run_window"),
        ({"run_window": 129}, "agencies[0]"),
        ({"agency_window": 0}, "agencies[0].agency_window"),
        ({"rejects_per_minute": 0}, "agencies[0].rejects_per_minute"),
        ({"source_prefixes": []}, "agencies[0].source_prefixes"),
        ({"source_prefixes": ["s3://nasa"]}, "agencies[0].source_prefixes[0]"),
        ({"source_prefixes": ["s3:///"]}, "agencies[0].source_prefixes[0]"),
        ({"source_prefixes": ["file:///"]}, "agencies[0].source_prefixes[0]"),
        ({"source_prefixes": ["file://host/data/"]}, "agencies[0].source_prefixes[0]"),
        ({"source_prefixes": ["http://x.example/"]}, "agencies[0].source_prefixes[0]"),
        ({"source_prefixes": ["https://x.example/"]}, "agencies[0].source_prefixes[0]"),  # no worker reads it
        ({"source_prefixes": ["s3://nasa/x?/"]}, "agencies[0].source_prefixes[0]"),
        ({"source_prefixes": ["s3://nasa/../"]}, "agencies[0]"),
        ({"source_prefixes": ["s3://nasa/%2e%2e/"]}, "agencies[0]"),
        ({"destination_prefixes": ["https://x.example/"]}, "agencies[0].destination_prefixes[0]"),
        ({"destination_prefixes": None}, "agencies[0].destination_prefixes"),
        ({"retention": {"checkpoints_keep_days": 0}}, "agencies[0].retention.checkpoints_keep_days"),
        ({"retention": {"checkpoints_keep_days": 10}}, "agencies[0].retention"),
        ({"retention": {"audit_keep_years": 0}}, "agencies[0].retention.audit_keep_years"),
        ({"retention": {"forever": True}}, "agencies[0].retention.forever"),
        ({"audit_required": "yes"}, "agencies[0].audit_required"),
        ({"quota": 1}, "agencies[0].quota"),
        ({"quota": {"producer_byte_rate": 1_000}}, "agencies[0].quota.producer_byte_rate"),
    ],
)
def test_each_fault_is_told_with_its_place(path: Path, changes: dict[str, Any], where: str) -> None:
    """Strict and closed: wrong types, unknown names, values out of range and contradictions."""
    found = faults(write(path, entry(**changes)))

    assert [where] == [fault.split(": ")[0] for fault in found]


def test_every_fault_is_told_at_once(path: Path) -> None:
    """One round of corrections instead of many."""
    found = faults(write(path, entry(run_window=0, name=""), entry(id="X"), entry(id="jpl", quota=1)))

    assert [fault.split(": ")[0] for fault in found] == [
        "agencies[0].name",
        "agencies[0].run_window",
        "agencies[1].id",
        "agencies[2].quota",
    ]


def test_an_agency_stands_once(path: Path) -> None:
    """Two entries of one id are a fault, which names both."""
    assert faults(write(path, entry(), entry())) == ['agencies[1].id: "nasa" is already agencies[0]']


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "version: 1",
        "version: 2\nagencies: []",
        "version: 1\nagencies: []",
        "version: 1\nagencies: {}",
        "version: 1\nversion: 1\nagencies: []",
        "version: 1\nagencies: [{id: nasa, id: esa}]",
        "version: 1\nagencies: &all [*all]",
        "version: 1\na: &a [x]\nagencies: *a",
        "version: 1\nagencies: [!!python/object/apply:os.getcwd []]",
        "version: 1\nagencies: [",
        "version: 1\n--- \nversion: 1",
        "version: 1\nagencies: [{id: 2026-13-45}]",
        "? [a]\n: b",
        "\x00",
    ],
)
def test_what_is_no_strict_registry_is_refused(path: Path, text: str) -> None:
    """Repeated names (PyYAML takes the last), aliases, tags and other shapes."""
    path.write_text(text)

    assert faults(path)


def test_deep_nesting_and_other_encodings_are_refused(path: Path) -> None:
    """No file can exhaust the stack or be read in a guessed encoding."""
    path.write_text("[" * 5_000)
    assert faults(path)
    path.write_bytes(b"version: \xff")
    assert [f"{path}: not UTF-8"] == faults(path)


def test_a_missing_or_oversized_file_is_refused(path: Path) -> None:
    """Both are named."""
    assert [f"{path}: cannot be read (No such file or directory)"] == faults(path)
    path.write_bytes(b"#" * (REGISTRY_BYTES_MAX + 1))
    assert [f"{path}: larger than {REGISTRY_BYTES_MAX} bytes"] == faults(path)


def test_a_yaml_fault_names_line_and_column(path: Path) -> None:
    """Where to look."""
    path.write_text("version: 1\nagencies: []\nagencies: []\n")

    assert [f"{path}:1:1: a name is repeated"] == faults(path)


def test_a_retirement_is_an_instant_with_a_zone(path: Path) -> None:
    """As text, or as YAML's own timestamp; kept in UTC."""
    kinds = {"k1": "2026-01-01T01:00:00+01:00", "k2": "2026-01-01T00:00:00Z"}
    issuers = {"https://issuer.nasa.example": {**ISSUER, "retired_at": kinds}}
    quoted = load_registry(write(path, entry(issuers=issuers))).issuers["https://issuer.nasa.example"]
    path.write_text(path.read_text().replace('"2026-01-01T00:00:00Z"', "2026-01-01T00:00:00Z"))
    plain = load_registry(path).issuers["https://issuer.nasa.example"]

    assert dict.fromkeys(kinds, datetime(2026, 1, 1, tzinfo=UTC)) == quoted.retired_at == plain.retired_at


def test_a_key_set_may_be_named_by_its_url(path: Path) -> None:
    """Nothing is fetched to read the registry; the parts are settled."""
    named = {"https://issuer.nasa.example": {**ISSUER, "jwks": "https://id.nasa.example/.well-known/jwks.json?v=1"}}
    url = load_registry(write(path, entry(issuers=named))).issuers["https://issuer.nasa.example"].jwks

    assert isinstance(url, KeyUrl)
    assert (url.host, url.port, url.target, url.tls) == ("id.nasa.example", 443, "/.well-known/jwks.json?v=1", True)
    assert url.authority == "id.nasa.example"
    assert str(url) == "https://id.nasa.example/.well-known/jwks.json?…"  # what follows may be a key of the provider's


@pytest.mark.parametrize("text", ["http://127.0.0.1:8080/jwks", "http://[::1]/", "https://10.1.2.3:8443/k"])
def test_addresses_and_the_loopback_are_good_urls(text: str) -> None:
    """Plain http never leaves the machine."""
    url = read_key_url(text)

    assert text.removeprefix("https://").removeprefix("http://").startswith(url.authority)


@pytest.mark.parametrize(
    "text",
    [
        "http://id.nasa.example/jwks",
        "http://localhost/jwks",
        "http://10.0.0.1/jwks",
        "ftp://id.nasa.example/jwks",
        "file:///etc/passwd://",
        "https://user:word@id.nasa.example/jwks",
        "https://id.nasa.example@evil.example/jwks",
        "https://id.nasa.example/jwks#keys",
        "https:///jwks",
        "https://id.nasa.example:0x1/jwks",
        "https://id.nasa.example:99999/jwks",
        "https://id.nasa.example/a b",
        "https://id.nasa.example\\@evil.example/",
        "https://id.nasa.example/\r\nHost:evil.example",
        "https://\u0131d.nasa.example/jwks",
        "https://-.example/jwks",
    ],
)
def test_what_could_lead_elsewhere_is_no_url(text: str) -> None:
    """Other schemes, logins, fragments, odd characters, and plain http beyond the loopback."""
    with pytest.raises(ValueError, match=r"."):
        read_key_url(text)
