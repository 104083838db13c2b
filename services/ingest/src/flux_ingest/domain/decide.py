"""The decision on a batch of one agency's requests: a pure fold, so that twins inside a batch are judged like any others.

What must hold: an id is occupied by its first accepted body, for ever (I4); a single use serves one body; a record that
was decided before is not decided anew, and a repetition stays one whatever is accepted later. A refusal binds nothing.
A spent token is refused before a conflict is: whoever comes with one learns nothing about ids.

| # | the record | decision |
|---|---|---|
| 1 | was decided at this very position | redelivered |
| 2 | was refused by itself | stays refused |
| 3 | names an id that is held by the same body | repeated |
| 4 | brings a single use that another body has spent | rejected, TOKEN_REPLAYED |
| 5 | names an id that is held by another body | rejected, REQUEST_CONFLICT or COMMAND_CONFLICT |
| 6 | else | accepted |
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from flux_common.kernel.codes import Code
from flux_ingest.domain.model import (
    Accepted,
    Asked,
    DeadLettered,
    Decision,
    Finding,
    Holder,
    Kind,
    Known,
    Redelivered,
    Rejected,
    Repeated,
)

_CONFLICT: Final = {Kind.RUN: Code.REQUEST_CONFLICT, Kind.COMMAND: Code.COMMAND_CONFLICT}


@dataclass(frozen=True, slots=True)
class _Fold:
    """What is known so far: what was gathered, and what the batch itself has accepted."""

    names: dict[Kind, MutableMapping[str, Holder]]
    uses: MutableMapping[str, Holder]


def decide(findings: Sequence[Finding], known: Known) -> list[Decision]:
    """Return one decision for each finding, in their order."""
    fold = _Fold({Kind.RUN: dict(known.requests), Kind.COMMAND: dict(known.commands)}, dict(known.uses))
    return [_decide_one(finding, known, fold) for finding in findings]


def _decide_one(finding: Finding, known: Known, fold: _Fold) -> Decision:
    code = known.rejected.get(finding.position)
    if code is not None:
        return Redelivered(finding.position, code)
    holder = _holder(finding, fold)
    if holder is not None and holder.position == finding.position:
        return Redelivered(finding.position, None)
    if not isinstance(finding, Asked):
        return finding
    if holder is not None and holder.sha256 == finding.sha256:
        return Repeated(finding, holder.position)
    if _is_replay(finding, fold):
        return _rejected(finding, Code.TOKEN_REPLAYED)
    if holder is None:
        return _accept(finding, fold)
    return _rejected(finding, _CONFLICT[finding.kind])


def _holder(finding: Finding, fold: _Fold) -> Holder | None:
    if isinstance(finding, DeadLettered) or finding.name is None:
        return None
    return fold.names[finding.kind].get(finding.name)


def _is_replay(asked: Asked, fold: _Fold) -> bool:
    user = fold.uses.get(asked.single_use.digest) if asked.single_use is not None else None
    return user is not None and user.sha256 != asked.sha256 and user.position != asked.position


def _accept(asked: Asked, fold: _Fold) -> Accepted:
    holder = Holder(asked.sha256, asked.position)
    fold.names[asked.kind][asked.name] = holder
    use = asked.single_use
    spends = use if use is not None and use.digest not in fold.uses else None
    if spends is not None:
        fold.uses[spends.digest] = holder
    return Accepted(asked, spends)


def _rejected(asked: Asked, code: Code) -> Rejected:
    return Rejected(asked.position, asked.kind, code, True, asked.request_id, asked.command_id)
