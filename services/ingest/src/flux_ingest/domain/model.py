"""What ingest judges, and what it decides, as frozen values.

A record comes to the decision as a *finding*: either `Asked`, if it passed every check for which the record and the
registry suffice, or already refused. What the record alone decides is decided before anything is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from flux_common.kernel.codes import Code
from flux_common.kernel.ids import run_id
from flux_common.kernel.positions import Position


class Kind(StrEnum):
    """What a record asks for: a run, or a command on a run."""

    RUN = "run"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class SingleUse:
    """What may be used by one accepted body only: a digest (64 hexadecimal digits), and when it may be forgotten."""

    digest: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """A request or command of a proven sender who may ask for it; `sha256` is the digest of the value as received."""

    position: Position
    kind: Kind
    agency_id: str
    request_id: str
    command_id: str | None
    sha256: str
    single_use: SingleUse | None

    @property
    def name(self) -> str:
        """Return the id that an acceptance occupies for ever."""
        return self.request_id if self.command_id is None else self.command_id

    @property
    def run_id(self) -> UUID:
        """Return the id of the run that is meant."""
        return run_id(self.agency_id, self.request_id)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing happens, and the sender is told why. `proven` says whether the sender is who they say they are."""

    position: Position
    kind: Kind
    code: Code
    proven: bool
    request_id: str | None = None
    command_id: str | None = None
    violations: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str | None:
        """Return the id that an acceptance would occupy, as far as the body names it."""
        return self.request_id if self.kind is Kind.RUN else self.command_id


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """Nobody can tell what the record asks for: it is put aside."""

    position: Position
    code: Code


Finding = Asked | Rejected | DeadLettered


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run or command is admitted. `spends` is what may not be used again; None where nothing is new to remember."""

    asked: Asked
    spends: SingleUse | None


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same body was accepted at `first`; nothing else happens."""

    asked: Asked
    first: Position


@dataclass(frozen=True, slots=True)
class Redelivered:
    """This very record was decided before; the decision stands and is not told again."""

    position: Position
    code: str | None


@dataclass(frozen=True, slots=True)
class Flooded:
    """Refused past the agency's refusals of a minute: the batch's one decision answers it, and no other does."""

    refused: Rejected | DeadLettered

    @property
    def position(self) -> Position:
        """Return the record's position."""
        return self.refused.position


Decision = Accepted | Repeated | Rejected | DeadLettered | Redelivered | Flooded


@dataclass(frozen=True, slots=True)
class Holder:
    """The accepted record that holds an id or a single use."""

    sha256: str
    position: Position


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier decisions left behind, as far as a batch touches it: holders by id or digest, refusals by position."""

    requests: Mapping[str, Holder] = field(default_factory=dict)
    commands: Mapping[str, Holder] = field(default_factory=dict)
    uses: Mapping[str, Holder] = field(default_factory=dict)
    rejected: Mapping[Position, str] = field(default_factory=dict)
