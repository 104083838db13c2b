"""Reading `agencies.yaml`: strict, closed, and every fault at once.

YAML's own traps are shut: a name that stands twice (PyYAML keeps the last), anchors and aliases (they can unfold to
gigabytes), and values that are not of their type (`no` is a boolean, `1_000` a number). Paths of key sets are relative
to the file. Nothing is used of a registry with a fault.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from flux_common.auth.compact import KID_PATTERN
from flux_common.auth.faults import ConfigurationRefused, Fault
from flux_common.auth.identity import Role
from flux_common.auth.key_url import is_url, read_key_url
from flux_common.auth.registry import Agency, Issuer, Registry, Retention, within
from flux_common.contracts.access import AGENCY_QUOTA, Quota
from flux_common.contracts.types import AgencyId

REGISTRY_BYTES_MAX: Final = 4 * 1024 * 1024

_VISIBLE = r"^[\x21-\x7e]+$"
Iss = Annotated[str, StringConstraints(pattern=_VISIBLE, max_length=512)]
Audience = Annotated[str, StringConstraints(pattern=_VISIBLE, max_length=256)]
# A prefix ends with a slash, so that `s3://nara/` never matches `s3://nara-other/`. A whole file system is no prefix.
_STORES = r"s3://[^/\s?#\\]+/|gs://[^/\s?#\\]+/|az://[^/\s?#\\]+/|file:///[^/\s?#\\]+/|memory:///"
Prefix = Annotated[str, StringConstraints(pattern=rf"^({_STORES})([^/\s?#\\]+/)*$", max_length=1024)]
Kid = Annotated[str, StringConstraints(pattern=rf"^{KID_PATTERN}$")]
Seconds = Annotated[int, Field(ge=1, le=7 * 86_400)]
SAY_THE_SAME: Final = "an issuer is one wherever it is listed: say the same of it in every agency"
TOKEN_LIFE_S_MAX: Final[Mapping[str, int]] = {"admin": 900, "operator": 3600, "viewer": 3600}


def _instant(value: object) -> object:
    """Return an instant that JSON or quoted YAML writes as text; YAML itself reads one that is not quoted."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("the instant has no zone; end it with Z")
    return value.astimezone(UTC)


Instant = Annotated[datetime, BeforeValidator(_instant), AfterValidator(_in_utc)]


class _Closed(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _IssuerEntry(_Closed):
    jwks: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    algorithms: Annotated[list[Literal["RS256", "PS256", "ES256", "EdDSA"]], Field(min_length=1, max_length=4)]
    audience: Audience
    retired_at: Annotated[dict[Kid, Instant], Field(max_length=64)] = Field(default_factory=dict)


class _RetentionEntry(_Closed):
    checkpoints_keep_days: Annotated[int, Field(ge=1, le=36_500)] = 365
    events_keep_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    audit_keep_years: Annotated[int, Field(ge=1, le=100)] = 7

    @model_validator(mode="after")
    def _events_expire_first(self) -> Self:
        if self.events_keep_days > self.checkpoints_keep_days:
            raise ValueError("events_keep_days is longer than checkpoints_keep_days: events expire first")
        return self


class _QuotaEntry(_Closed):
    """What an agency's login may have of each broker; the least lets one request of the largest size through in a second."""

    producer_byte_rate: Annotated[int, Field(ge=2**18, le=2**40)] = AGENCY_QUOTA.producer_byte_rate
    consumer_byte_rate: Annotated[int, Field(ge=2**18, le=2**40)] = AGENCY_QUOTA.consumer_byte_rate
    request_percentage: Annotated[int, Field(ge=1, le=100_000)] = AGENCY_QUOTA.request_percentage


class _AgencyEntry(_Closed):
    id: AgencyId
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    suspended: bool = False
    issuers: Annotated[dict[Iss, _IssuerEntry], Field(min_length=1, max_length=16)]
    binding_required: bool = True
    reuse_unbound_tokens: bool = False
    token_life_s_max: Annotated[dict[Literal["admin", "operator", "viewer"], Seconds], Field(min_length=1)] = Field(
        default_factory=lambda: dict(TOKEN_LIFE_S_MAX)  # type: ignore[arg-type]  # the same three names
    )
    queue_age_max_s: Seconds | None = None
    run_window: Annotated[int, Field(ge=1, le=10_000)] = 32
    agency_window: Annotated[int, Field(ge=1, le=100_000)] = 128
    rejects_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    source_prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=256)]
    destination_prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=256)]
    retention: _RetentionEntry = Field(default_factory=_RetentionEntry)
    audit_required: bool = False
    quota: _QuotaEntry = Field(default_factory=_QuotaEntry)

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.binding_required and self.reuse_unbound_tokens:
            raise ValueError("reuse_unbound_tokens contradicts binding_required")
        if self.run_window > self.agency_window:
            raise ValueError("run_window is larger than agency_window")
        prefixes = [*self.source_prefixes, *self.destination_prefixes]
        if not all(within(prefix, [prefix]) for prefix in prefixes):
            raise ValueError("a prefix has a dot segment, a control character or a doubly encoded one")
        return self


class _RegistryFile(_Closed):
    version: Literal[1]
    agencies: Annotated[list[_AgencyEntry], Field(min_length=1, max_length=10_000)]


def load_registry(path: Path) -> Registry:
    """Return what the agency registry at `path` says; raise `ConfigurationRefused` with every fault."""
    data = _read(path)
    try:
        entries = _RegistryFile.model_validate(_parse(data, path)).agencies
    except ValidationError as error:
        raise ConfigurationRefused(_faults(error)) from None
    faults = [*_repeated(entries), *_contested(entries), *_unreachable_keys(entries, path.parent)]
    if faults:
        raise ConfigurationRefused(faults)
    return Registry(
        MappingProxyType({entry.id: _agency(entry) for entry in entries}),
        MappingProxyType({issuer.iss: issuer for issuer in _issuers(entries, path.parent)}),
        hashlib.sha256(data).hexdigest(),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(REGISTRY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationRefused(
            [Fault(str(path), f"cannot be read ({error.strerror})", "correct the path, and let this user read it")]
        ) from None
    if len(data) > REGISTRY_BYTES_MAX:
        raise ConfigurationRefused(
            [Fault(str(path), f"larger than {REGISTRY_BYTES_MAX} bytes", "remove what is not needed")]
        )
    return data


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without repeated names and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases, which can unfold without bound."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it open
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a name that stands twice."""
        names = [key.value for key, _ in node.value]
        if len(set(names)) != len(names):
            raise yaml.MarkedYAMLError(problem="a name is repeated", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _parse(data: bytes, path: Path) -> object:
    try:
        return yaml.load(data.decode("utf-8"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader, made stricter)
    except UnicodeDecodeError:
        raise ConfigurationRefused([Fault(str(path), "not UTF-8", "save it as UTF-8")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigurationRefused([Fault(where, error.problem or "not YAML")]) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigurationRefused([Fault(str(path), f"not YAML ({type(error).__name__})")]) from None


_NEXT_STEPS: Final[Mapping[str, str]] = {
    "missing": "add it",
    "extra_forbidden": "correct the name, or remove it: what is not known here is not ignored",
    "string_pattern_mismatch": "write it in this form",
}


def _faults(error: ValidationError) -> Iterator[Fault]:
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        said, step = fault["msg"].removeprefix("Value error, "), _NEXT_STEPS.get(fault["type"])
        yield Fault(_path(fault["loc"]), said, step) if step else Fault(_path(fault["loc"]), said)


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text or "the file"


def _repeated(entries: list[_AgencyEntry]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if first.setdefault(entry.id, index) != index:
            yield Fault(f"agencies[{index}].id", f'"{entry.id}" is already agencies[{first[entry.id]}]', "keep one")


def _contested(entries: list[_AgencyEntry]) -> Iterator[Fault]:
    """One `iss` has one key set, wherever it is listed: two answers to "whose key is this" are none."""
    known: dict[str, tuple[int, _IssuerEntry]] = {}
    for index, entry in enumerate(entries):
        for iss, issuer in entry.issuers.items():
            first, same = known.setdefault(iss, (index, issuer))
            if same != issuer:
                yield Fault(
                    f'agencies[{index}].issuers["{iss}"]', f"differs from the one in agencies[{first}]", SAY_THE_SAME
                )


def _unreachable_keys(entries: list[_AgencyEntry], folder: Path) -> Iterator[Fault]:
    for index, entry in enumerate(entries):
        for iss, issuer in entry.issuers.items():
            where = f'agencies[{index}].issuers["{iss}"].jwks'
            if not is_url(issuer.jwks):
                if not (folder / issuer.jwks).is_file():
                    yield Fault(where, f"there is no file {folder / issuer.jwks}", "correct the name, or put it there")
                continue
            try:
                read_key_url(issuer.jwks)
            except ValueError as wrong:
                yield Fault(where, str(wrong), "name the key set's final address: https://host/path, and nothing else")


def _issuers(entries: list[_AgencyEntry], folder: Path) -> Iterator[Issuer]:
    listed: dict[str, _IssuerEntry] = {}
    agencies: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for iss, issuer in entry.issuers.items():
            listed[iss] = issuer
            agencies[iss].add(entry.id)
    for iss, issuer in listed.items():
        yield Issuer(
            iss,
            read_key_url(issuer.jwks) if is_url(issuer.jwks) else folder / issuer.jwks,
            frozenset(issuer.algorithms),
            issuer.audience,
            frozenset(agencies[iss]),
            MappingProxyType(dict(issuer.retired_at)),
        )


def _agency(entry: _AgencyEntry) -> Agency:
    return Agency(
        agency_id=entry.id,
        name=entry.name,
        suspended=entry.suspended,
        issuers=frozenset(entry.issuers),
        binding_required=entry.binding_required,
        reuse_unbound_tokens=entry.reuse_unbound_tokens,
        token_life_s_max=MappingProxyType({Role(role): life for role, life in entry.token_life_s_max.items()}),
        queue_age_max_s=entry.queue_age_max_s,
        run_window=entry.run_window,
        agency_window=entry.agency_window,
        rejects_per_minute=entry.rejects_per_minute,
        source_prefixes=tuple(entry.source_prefixes),
        destination_prefixes=tuple(entry.destination_prefixes),
        retention=Retention(**entry.retention.model_dump()),
        audit_required=entry.audit_required,
        quota=Quota(**entry.quota.model_dump()),
    )
