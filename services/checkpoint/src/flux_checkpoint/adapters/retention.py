"""How long each agency's rows are kept, as the agency registry says.

Theory. The registry is optional here: without it, and for an agency that it does not name, the settings hold for all. It is
read at the start, when a fault ends the process as it does everywhere, and again before each pass of the expiry: a file that
has a fault by then changes nothing and is logged. How long an ended run is kept is written down at its end, so a registry that
changes later changes that for runs that end later; history goes by what the registry says when it is looked at.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from flux_common.auth import ConfigurationRefused, Registry, load_registry
from flux_common.kernel.codes import Code
from flux_common.observability.logging import get_logger

log = get_logger(__name__)


class Retentions:
    """Each agency's own, or the settings'. The constructor raises `ConfigurationRefused`."""

    def __init__(self, path: Path | None, runs: timedelta, events: timedelta) -> None:
        self._path, self._runs, self._events = path, runs, events
        self._registry: Registry | None = load_registry(path) if path else None

    def refresh(self) -> None:
        """Read the registry again; one with a fault changes nothing."""
        if self._path is not None:
            try:
                self._registry = load_registry(self._path)
            except ConfigurationRefused as refused:
                faults = [str(fault) for fault in refused.faults]
                log.error("agency registry refused; the old one stands", code=Code.SETTINGS_INVALID, faults=faults)

    def runs(self, agency_id: str) -> timedelta:
        """Return how long an ended run is kept, with its checkpoints."""
        agency = self._registry.agency(agency_id) if self._registry else None
        return timedelta(days=agency.retention.checkpoints_keep_days) if agency else self._runs

    def events(self, agency_id: str) -> timedelta:
        """Return how long the history of an ended run is kept."""
        agency = self._registry.agency(agency_id) if self._registry else None
        return timedelta(days=agency.retention.events_keep_days) if agency else self._events
