"""How long an agency's rows are kept: the registry's word, or the settings'."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flux_checkpoint.adapters.retention import Retentions
from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.auth import ConfigurationRefused

RUNS, EVENTS = timedelta(days=7), timedelta(days=3)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry of nasa, which says nothing of its retention: a year, and 90 days of history."""
    return write_development_registry(tmp_path, [DevelopmentAgency("nasa", "NASA")])


def test_without_a_registry_the_settings_hold() -> None:
    """For everybody."""
    kept = Retentions(None, RUNS, EVENTS)
    kept.refresh()

    assert (kept.runs("nasa"), kept.events("nasa")) == (RUNS, EVENTS)


def test_the_registry_goes_before_the_settings(registry: Path) -> None:
    """For whom it names."""
    kept = Retentions(registry, RUNS, EVENTS)

    assert (kept.runs("nasa"), kept.events("nasa")) == (timedelta(days=365), timedelta(days=90))
    assert (kept.runs("loc"), kept.events("loc")) == (RUNS, EVENTS)


def test_a_changed_registry_is_read_again_and_a_faulty_one_changes_nothing(registry: Path) -> None:
    """At the start a fault is refused."""
    kept = Retentions(registry, RUNS, EVENTS)
    text = registry.read_text().replace("id: nasa\n", "id: nasa\n  retention: {events_keep_days: 30}\n")
    assert "retention" in text
    registry.write_text(text)
    kept.refresh()
    registry.write_text(text.replace("30", "-1"))
    kept.refresh()

    assert kept.events("nasa") == timedelta(days=30)
    with pytest.raises(ConfigurationRefused):
        Retentions(registry, RUNS, EVENTS)
