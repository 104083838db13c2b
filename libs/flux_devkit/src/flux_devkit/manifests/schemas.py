"""Whether documents are what an API server takes: Kubernetes' own schemas, strict, and those of the operators' resources.

Kubernetes' schemas are those of `kubernetes-validate`; strict means that an unknown field is a mistake, as it is for
`kubectl apply --validate=strict`. The operators' schemas are files `<Kind>_<group>_<version>.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jsonschema
from referencing import Registry, Resource

from flux_devkit.manifests.documents import Document, Finding, name_of

KUBERNETES: Final = "1.37"
OPERATORS: Final = {
    "keda.sh",
    "kafka.strimzi.io",
    "postgresql.cnpg.io",
    "monitoring.coreos.com",
    "external-secrets.io",
    "cert-manager.io",
}


def is_operators(document: Document) -> bool:
    """Tell whether a document is a resource of an operator, and not of Kubernetes itself."""
    return group_of(document) in OPERATORS


def group_of(document: Document) -> str:
    """Return the API group; the core group is empty."""
    return str(document.get("apiVersion", "")).rpartition("/")[0]


def kubernetes_findings(documents: Iterable[Document]) -> Iterator[Finding]:
    """Yield what Kubernetes would refuse of its own resources."""
    for document in documents:
        if not is_operators(document):
            yield from _broken(document, _kubernetes_validator(str(document["apiVersion"]), str(document["kind"])))


def operator_findings(documents: Iterable[Document], folder: Path) -> Iterator[Finding]:
    """Yield what an operator's resource definition refuses, by the schemas in `folder`."""
    for document in documents:
        if is_operators(document):
            yield from _broken(document, _operator_validator(folder, document))


def _broken(document: Document, validator: Any) -> Iterator[Finding]:
    if validator is None:
        yield Finding(name_of(document), f"there is no schema of {document['apiVersion']} {document['kind']}")
        return
    for error in validator.iter_errors(document):
        path = ".".join(str(part) for part in error.absolute_path)
        yield Finding(name_of(document), f"{path}: {error.message[:300]}")


@cache
def _kubernetes_validator(api_version: str, kind: str) -> Any:
    """Return the validator of one kind; group and version are written as the schemas' file names have them."""
    group, _, version = api_version.rpartition("/")
    name = f"{kind.lower()}-{group.partition('.')[0] + '-' if group else ''}{version}.json"
    path = _kubernetes_schemas() / name
    if not path.is_file():
        return None
    schema = json.loads(path.read_text())
    registry: Any = Resource.from_contents(schema) @ _definitions()
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions() -> Any:
    contents = json.loads((_kubernetes_schemas() / "_definitions.json").read_text())
    return Resource.from_contents(contents) @ Registry()


def _kubernetes_schemas() -> Path:
    return Path(str(files("kubernetes_validate"))) / "kubernetes-json-schema" / f"v{KUBERNETES}.0-local-strict"


def _operator_validator(folder: Path, document: Document) -> Any:
    group, _, version = document["apiVersion"].rpartition("/")
    return _schema_file(folder / f"{document['kind']}_{group}_{version}.json")


@cache
def _schema_file(path: Path) -> Any:
    return jsonschema.Draft202012Validator(json.loads(path.read_text())) if path.is_file() else None
