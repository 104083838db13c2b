"""Rendered documents, and the pods that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

Document = dict[str, Any]
NAMESPACE: Final = "flux-etl"
POD_MAKERS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake: which document has it, and what it is."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that some document makes: its labels and its spec."""

    where: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    def containers(self) -> Iterator[Mapping[str, Any]]:
        """Yield every container, whenever it runs."""
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            yield from self.spec.get(kind) or []


class _TextDates(yaml.CSafeLoader):
    """A loader that leaves timestamps alone, as Kubernetes does."""


_TextDates.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> list[Document]:
    """Return the documents of a YAML stream."""
    return [document for document in yaml.load_all(text, _TextDates) if document]


def name_of(document: Document) -> str:
    """Return `Kind/name`."""
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def of_kind(documents: Iterable[Document], *kinds: str) -> Iterator[Document]:
    """Yield the documents of these kinds."""
    return (document for document in documents if document.get("kind") in kinds)


def named(documents: Iterable[Document], kind: str, name: str) -> Document:
    """Return one document. Raises LookupError."""
    for document in of_kind(documents, kind):
        if document["metadata"]["name"] == name:
            return document
    raise LookupError(f"there is no {kind}/{name}")


def pods(documents: Iterable[Document]) -> Iterator[Pod]:
    """Yield a pod of every document that makes pods."""
    for document in documents:
        kind, spec = document.get("kind"), document.get("spec", {})
        if kind == "Pod":
            yield Pod(name_of(document), document["metadata"].get("labels", {}), spec)
        elif kind == "CronJob":
            yield _pod(document, spec["jobTemplate"]["spec"]["template"])
        elif kind in POD_MAKERS:
            yield _pod(document, spec["template"])


def _pod(document: Document, template: Mapping[str, Any]) -> Pod:
    return Pod(name_of(document), template.get("metadata", {}).get("labels", {}), template["spec"])


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector selects something with these labels; an empty one selects everything."""
    selector = selector or {}
    equal = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return equal and all(_expression(each, labels) for each in selector.get("matchExpressions") or [])


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    verdicts = {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }
    return verdicts[expression["operator"]]
