"""The end of a run: one terminal event for each attempt, with what it is proof of."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flux_checkpoint.domain.dispatch import Facts
from flux_checkpoint.domain.model import REJECT_CODES_MAX
from flux_checkpoint.domain.states import RunState
from flux_checkpoint.ports import DispatchStore
from flux_common.contracts import catalogue, runs
from flux_common.contracts.canonical import digest
from flux_common.contracts.envelope import Outgoing
from flux_common.contracts.outgoing import Emitter
from flux_common.contracts.types import Event
from flux_common.kernel.clock import rfc3339
from flux_common.kernel.codes import Code, meaning_of
from flux_common.kernel.errors import InvariantBroken, RunBroken
from flux_common.kernel.ids import terminal_id

_EMITTER = Emitter("checkpoint")
HEADS_PAGE = 5000


class Endings:
    """Ends one run in one transaction."""

    def __init__(self, store: DispatchStore, facts: Facts, keep: timedelta) -> None:
        self._store = store
        self._facts = facts
        self._run = facts.run
        self._keep = keep

    async def end(self, state: RunState, cause: str | None, code: str | None) -> list[Outgoing]:
        """Write the terminal state and return its event, and the fact that attests it (facts come first).

        Raises:
            InvariantBroken: this attempt has ended before.
            RunBroken: it would complete with more reject codes than a completion can name.
        """
        at = await self._store.end_run(self._run.key, state, cause, code, self._facts.totals, self._keep)
        if at is None:
            raise InvariantBroken(Code.INVARIANT_BROKEN, "A run attempt would end twice")
        spec, body = await self._body(state, cause, code, at)
        run_id = str(self._run.key.run_id)
        event = _EMITTER.event(
            catalogue.COMPLETIONS,
            spec,
            body,
            agency_id=self._run.key.agency_id,
            key=run_id,
            event_id=terminal_id(run_id, self._run.run_attempt),
            at=at,
            subject=run_id,
            traceparent=self._run.traceparent,
        )
        refs = {"run_id": run_id, "run_attempt": self._run.run_attempt, "request_id": self._run.request_id}
        fact = _EMITTER.attest(
            event,
            f"run.{state.lower()}",
            at=at,
            outcome="failed" if state is RunState.FAILED else "ok",
            code=code,
            refs=refs,
            traceparent=self._run.traceparent,
        )
        return [fact, event]

    async def _body(self, state: RunState, cause: str | None, code: str | None, at: datetime) -> tuple[Any, Event]:
        named: dict[str, Any] = {
            "agency_id": self._run.key.agency_id,
            "request_id": self._run.request_id,
            "run_id": str(self._run.key.run_id),
            "run_attempt": self._run.run_attempt,
            "counts": self._counts(),
        }
        if state is RunState.FAILED:
            named |= {"cause": cause, "code": code, "message": meaning_of(code or "")}
            return catalogue.RUN_FAILED, runs.RunFailed(**named, failed_at=rfc3339(at))
        if state is RunState.CANCELLED:
            command = self._run.cancel_command_id or "unknown"
            return catalogue.RUN_CANCELLED, runs.RunCancelled(**named, command_id=command, cancelled_at=rfc3339(at))
        return catalogue.RUN_COMPLETED, await self._completed(named, at)

    async def _completed(self, named: dict[str, Any], at: datetime) -> runs.RunCompleted:
        run = self._run
        left = await self._store.ending(run.key)
        rejects = await self._store.rejects_by_code(run.key)
        if len(rejects) > REJECT_CODES_MAX:
            raise RunBroken(Code.COUNTS_MISMATCH, "There are more reject codes than a completion can name")
        assert run.plan_digest is not None
        assert left.manifest_digest is not None
        return runs.RunCompleted(
            **named,
            partitions=run.partitions,
            objects=run.objects,
            rejects_by_code=rejects,
            plan_digest=run.plan_digest.hex(),
            chain_root=await self._chain_root(),
            manifest=runs.Manifest(
                uri=left.manifest_uri or "",
                sha256=left.manifest_digest.hex(),
                files=left.manifest_files or 0,
                rows=left.manifest_rows or 0,
            ),
            transform_version=run.transform_version or "",
            admitted_at=rfc3339(run.admitted_at),
            completed_at=rfc3339(at),
        )

    async def _chain_root(self) -> str:
        """Return the SHA-256 of the JCS list of all chain heads, in partition order."""
        heads: list[str] = []
        while page := await self._store.heads(self._run.key, len(heads), HEADS_PAGE):
            heads += [head.hex() for _, _, head in page]
        return digest(heads)

    def _counts(self) -> runs.Counts:
        totals = self._facts.totals
        return runs.Counts(
            read=totals.read,
            written=totals.written,
            rejected=totals.rejected,
            bytes_in=totals.bytes_in,
            bytes_out=totals.bytes_out,
        )
