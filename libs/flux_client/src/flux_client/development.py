"""The agencies of a development installation: a registry, and a key pair for each agency's issuer.

Made by `make demo`, the tests and `flux-etl dev up`; an installation writes its own `agencies.yaml`. Calling it again
keeps every key and rewrites the registry only if it would say something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from flux_client.keys import DevelopmentAlgorithm, ensure_key, jwks_path, write_whole

AUDIENCE: Final = "flux"
REGISTRY_FILE: Final = "agencies.yaml"
_HEAD: Final = b"# Written for development; written again when agencies or folders change.\n"


@dataclass(frozen=True, slots=True)
class DevelopmentAgency:
    """An agency as the development registry lists it; what is not said here has the registry's defaults.

    Tokens need no binding and may be used again, unless told otherwise. `jwks_url` is where its issuer publishes, if not
    in the file beside the key; `algorithms` what it may sign with, if not only what its key does.
    """

    agency_id: str
    name: str
    algorithm: DevelopmentAlgorithm = "ES256"
    binding_required: bool = False
    reuse_unbound_tokens: bool = True
    suspended: bool = False
    rejects_per_minute: int | None = None
    jwks_url: str | None = None
    algorithms: Sequence[DevelopmentAlgorithm] = ()
    audit_required: bool = False

    @property
    def iss(self) -> str:
        """Return the issuer that stands for the agency's identity provider."""
        return f"https://issuer.{self.agency_id}.example"


EXAMPLE_AGENCIES: Final = (
    DevelopmentAgency("national-archives", "National Archives"),
    DevelopmentAgency("nasa", "NASA", algorithm="EdDSA"),
    DevelopmentAgency("library-of-congress", "Library of Congress"),
)


def write_development_registry(
    folder: Path,
    agencies: Sequence[DevelopmentAgency] = EXAMPLE_AGENCIES,
    *,
    source_prefixes: Sequence[str] = (),
    destination_prefixes: Sequence[str] = (),
) -> Path:
    """Write keys and `agencies.yaml` into `folder`, and return the registry's path.

    Every agency may use `memory:///`, its own folders `archives/<agency>/` and `datasets/<agency>/` beside `folder`, and
    the given prefixes (each ends with `/`).
    """
    entries = []
    for agency in agencies:
        ensure_key(folder, agency.agency_id, agency.algorithm)
        entries.append(_entry(folder, agency, source_prefixes, destination_prefixes))
    path = folder / REGISTRY_FILE
    write_whole(path, _HEAD + yaml.safe_dump({"version": 1, "agencies": entries}, sort_keys=False).encode())
    return path


def _entry(
    folder: Path, agency: DevelopmentAgency, sources: Sequence[str], destinations: Sequence[str]
) -> dict[str, Any]:
    issuer = {
        "jwks": agency.jwks_url or jwks_path(folder, agency.agency_id).name,
        "algorithms": list(agency.algorithms or [agency.algorithm]),
        "audience": AUDIENCE,
    }
    beside = folder.resolve().parent.as_uri()
    brake = {} if agency.rejects_per_minute is None else {"rejects_per_minute": agency.rejects_per_minute}
    return brake | {
        "id": agency.agency_id,
        "name": agency.name,
        "suspended": agency.suspended,
        "issuers": {agency.iss: issuer},
        "binding_required": agency.binding_required,
        "reuse_unbound_tokens": agency.reuse_unbound_tokens,
        "audit_required": agency.audit_required,
        "source_prefixes": ["memory:///", f"{beside}/archives/{agency.agency_id}/", *sources],
        "destination_prefixes": ["memory:///", f"{beside}/datasets/{agency.agency_id}/", *destinations],
    }
