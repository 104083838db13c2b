"""Metrics: the conventions that every name keeps."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from flux_common.observability import metrics

FAMILIES = [family for family in metrics.REGISTRY.collect() if family.name.startswith("flux_")]
FORBIDDEN_LABELS = {"run_id", "request_id", "item", "event_id", "offset", "trace_id"}


def _declared() -> list[object]:
    return [each for name, each in vars(metrics).items() if hasattr(each, "_labelnames") and not name.startswith("_")]


def test_every_name_has_the_prefix_and_base_units() -> None:
    """Names are flux_snake_case; what is a time is in seconds, and nothing is in ms or kB."""
    names = [family.name for family in FAMILIES]

    assert len(names) == len(set(names)) == len(_declared())
    assert [name for name in names if not re.fullmatch(r"flux_[a-z0-9_]+", name)] == []
    assert [name for name in names if re.search(r"_(ms|millis|kb|mb|minutes)(_|$)", name)] == []


def test_no_metric_has_a_label_without_bound() -> None:
    """Runs, requests and offsets are never labels."""
    labels = {label for metric in _declared() for label in metric._labelnames}  # type: ignore[attr-defined]

    assert labels & FORBIDDEN_LABELS == set()


def test_every_metric_says_what_it_means() -> None:
    """Help is a sentence."""
    assert [family.name for family in FAMILIES if not family.documentation.endswith(".")] == []


def test_the_exposition_is_readable_by_prometheus() -> None:
    """What /metrics answers parses, and names() says the series as a query writes them."""
    metrics.decisions.labels("accepted", "").inc()
    parsed = {family.name for family in text_string_to_metric_families(metrics.exposition().decode())}

    assert {"flux_decisions", "flux_backstop_mends", "process_resident_memory_bytes"} <= parsed
    assert {"flux_decisions_total", "flux_lane_lag_records", "flux_batch_duration_seconds_bucket"} <= set(
        metrics.names()
    )
