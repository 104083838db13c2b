"""Alerts and dashboards: every metric that they name is one of the code's, and every alert leads to a runbook.

Names are taken from the expressions as PromQL has them: words that are followed by no parenthesis, that are no labels and no
keywords. Labels in braces and in `by (…)` must be labels of the metric, or one of those that the scrape adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from flux_common.observability import metrics
from flux_devkit.manifests.documents import Document, Finding, name_of, of_kind

METRIC: Final = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")
KEYWORDS: Final = {
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
}
SCRAPED: Final = {"service", "namespace", "pod", "le"}
SEVERITIES: Final = {"page", "ticket"}


def alerts(documents: Iterable[Document]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, alert) of every alerting rule."""
    for document in of_kind(documents, "PrometheusRule"):
        for group in document["spec"]["groups"]:
            yield from ((f"{name_of(document)} {rule['alert']}", rule) for rule in group["rules"] if "alert" in rule)


def metric_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield metrics and labels in rules and dashboards that the code does not have."""
    for where, expression in _expressions(documents):
        yield from (Finding(where, what) for what in expression_faults(expression))


def _expressions(documents: list[Document]) -> Iterator[tuple[str, str]]:
    yield from ((where, rule["expr"]) for where, rule in alerts(documents))
    for document in of_kind(documents, "ConfigMap"):
        for name, text in (document.get("data") or {}).items():
            if document["metadata"].get("labels", {}).get("grafana_dashboard") and name.endswith(".json"):
                yield from (
                    (f"{name_of(document)} {title}", expr) for title, expr in dashboard_queries(json.loads(text))
                )


def dashboard_queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (panel, query) of a dashboard."""
    for panel in dashboard["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))


def expression_faults(expression: str) -> Iterator[str]:
    """Yield what an expression names and the code has not."""
    known = set(metrics.names())
    named = metrics_of(expression)
    yield from (f"there is no metric {name}" for name in sorted(named - known))
    allowed = SCRAPED.union(*(_labels(name) for name in named & known))
    yield from (
        f"no metric in it has a label {label}" for label in sorted(labels_of(expression) - allowed) if named <= known
    )


def metrics_of(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression names."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expression)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    return {word for word in METRIC.findall(bare) if word not in KEYWORDS and not word.replace("e", "").isdigit()}


def labels_of(expression: str) -> set[str]:
    """Return the labels that a PromQL expression asks for."""
    matched = {
        label for inside in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", inside)
    }
    grouped = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression)
    return matched | {label.strip() for inside in grouped for label in inside.split(",") if label.strip()}


def _labels(sample: str) -> set[str]:
    """Return the labels that a series of the code has."""
    stem = re.sub(r"_(total|bucket|count|sum|info)$", "", sample)
    for value in vars(metrics).values():
        if getattr(value, "_name", None) == stem:
            return {*getattr(value, "_labelnames", ()), *({"service", "version"} if stem == "flux_build" else ())}
    return set()


def runbook_findings(documents: list[Document], repository: Path) -> Iterator[Finding]:
    """Yield alerts that lead to no section of a document, or that say not how bad it is."""
    for where, rule in alerts(documents):
        runbook = rule.get("annotations", {}).get("runbook", "")
        if not _leads(repository, runbook):
            yield Finding(where, f"its runbook is nowhere: {runbook!r}")
        if rule.get("labels", {}).get("severity") not in SEVERITIES or not rule["annotations"].get("summary"):
            yield Finding(where, "it has no severity, or no summary")


def _leads(repository: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    document = repository / path
    if not path.endswith(".md") or not anchor or not document.is_file():
        return False
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return anchor in {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
