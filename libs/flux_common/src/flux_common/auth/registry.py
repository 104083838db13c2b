"""Which agencies there are, who vouches for them, and what they may have.

The file `agencies.yaml` is the authority; this is what it says, as frozen values. An issuer belongs to the agencies
that list it and to no other. A registry with a fault is never used, not even the part without it (`registry_file`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from flux_common.auth.identity import Role
from flux_common.auth.key_url import KeyUrl
from flux_common.contracts.access import AGENCY_QUOTA, Quota


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs tokens: `iss`, where its public keys are, what it may sign with, for whom, and for which agencies.

    `retired_at` says by `kid` since when a key counts no longer: a record that arrived after that is refused.
    """

    iss: str
    jwks: Path | KeyUrl
    algorithms: frozenset[str]
    audience: str
    agencies: frozenset[str]
    retired_at: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Retention:
    """How long an agency's records are kept."""

    checkpoints_keep_days: int
    events_keep_days: int
    audit_keep_years: int


@dataclass(frozen=True, slots=True)
class Agency:
    """A tenant. `run_window` and `agency_window` count items not yet finished; lives and ages are in seconds.

    A role that `token_life_s_max` does not name may not be used at all. `queue_age_max_s` None: requests do not age.
    `quota` is what the brokers let its login have.
    """

    agency_id: str
    name: str
    suspended: bool
    issuers: frozenset[str]
    binding_required: bool
    reuse_unbound_tokens: bool
    token_life_s_max: Mapping[Role, int]
    queue_age_max_s: int | None
    run_window: int
    agency_window: int
    rejects_per_minute: int
    source_prefixes: tuple[str, ...]
    destination_prefixes: tuple[str, ...]
    retention: Retention
    audit_required: bool
    quota: Quota = AGENCY_QUOTA

    def may_read(self, uri: str) -> bool:
        """Return whether a source at `uri` is inside what the agency may use."""
        return within(uri, self.source_prefixes)

    def may_write(self, uri: str) -> bool:
        """Return whether a destination at `uri` is inside what the agency may use."""
        return within(uri, self.destination_prefixes)


@dataclass(frozen=True, slots=True)
class Registry:
    """Every agency and every issuer; `digest` is the SHA-256 of the file it was read from."""

    agencies: Mapping[str, Agency]
    issuers: Mapping[str, Issuer]
    digest: str

    def agency(self, agency_id: str) -> Agency | None:
        """Return the agency of this id, if it is registered."""
        return self.agencies.get(agency_id)

    def issuer(self, iss: str) -> Issuer | None:
        """Return the issuer whose `iss` is exactly this text, if any agency lists it."""
        return self.issuers.get(iss)


def within(uri: str, prefixes: Iterable[str]) -> bool:
    """Return whether `uri` lies under one of `prefixes` (each ends with `/`), however it may be read.

    What a store or a file system could resolve to another place is outside: dot segments, also percent-encoded or
    encoded twice, backslashes, control characters, query and fragment.
    """
    decoded = unquote(uri)
    if any(character in decoded for character in "\\?#%") or not decoded.isprintable():
        return False
    if any(segment in {".", ".."} for segment in decoded.split("/")):
        return False
    return any(uri.startswith(prefix) or uri + "/" == prefix for prefix in prefixes)
