"""The gate before an agency's decisions: where it requires that they are sealed soon, its lanes wait for the seal.

A lane that waits is held where it is: nothing of it is decided, lost or passed over, the lanes of other agencies go on, and
it tries again by itself after a pause that grows to half a minute. It waits as a whole, commands and what would be
refused included: its records are judged in their order, and each judgement is a fact that must be sealed like any other.
So a *cancel* waits, too. Whoever cannot wait takes `audit_required` from the agency in the registry.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from flux_common.auth import Agency
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, Overloaded
from flux_common.observability import metrics
from flux_common.observability.logging import get_logger
from flux_ingest.domain.seals import Seals, is_behind

log = get_logger(__name__)


class SealGate:
    """Lets agencies through whose seal is at most `most` behind, and all that do not ask for it."""

    def __init__(self, seals: Seals, most: timedelta) -> None:
        self._seals, self._most = seals, most
        self._waiting: set[str] = set()

    def check(self, agency: Agency, now: datetime) -> None:
        """Return if decisions for `agency` may be made. `now` is the database's.

        Raises:
            Overloaded: its lanes must wait (SEAL_LAGGING).
        """
        lag = self._seals.lag(agency.agency_id, now)
        waits = agency.audit_required and is_behind(lag, self._most)
        self._tell(agency.agency_id, waits, lag)
        if waits:
            metrics.intake_held.labels(agency.agency_id).inc()
            raise Overloaded(
                Code.SEAL_LAGGING,
                f"{agency.agency_id} requires audit, and its seal {_words(lag)}",
                classification=Classification.AUDIT,
            )

    def _tell(self, agency_id: str, waits: bool, lag: timedelta | None) -> None:
        """Log a change, once."""
        if waits and agency_id not in self._waiting:
            self._waiting.add(agency_id)
            log.error("requests wait for the seal", agency_id=agency_id, code=Code.SEAL_LAGGING, seal=_words(lag))
        elif not waits and agency_id in self._waiting:
            self._waiting.remove(agency_id)
            log.info("requests wait for the seal no more", agency_id=agency_id, seal=_words(lag))


def _words(lag: timedelta | None) -> str:
    return "is not known" if lag is None else f"is {lag.total_seconds():.1f} s behind"
