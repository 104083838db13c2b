"""What no manifest of Flux has: rights at the API, secrets in the open, images that float, pods without bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from flux_devkit.manifests.documents import Document, Finding, Pod, name_of, of_kind, pods
from flux_devkit.manifests.quantities import quantity

RIGHTS: Final = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
SECRET_WORDS: Final = re.compile(r"(?i)password|secret|token|credential|(^|_)key(_|$)|passwd|api_?key")
REFERS: Final = re.compile(r"(?i)_(file|dir|ratio|username)$|mechanism")
PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\"d\"\s*:\s*\"")
DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
EXACT: Final = re.compile(r":[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?$|@sha256:[0-9a-f]{64}$")


def rights_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield rights at the API, and tokens that would carry them: Flux never calls it."""
    yield from (Finding(name_of(each), "gives rights at the API") for each in of_kind(documents, *RIGHTS))
    for account in of_kind(documents, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield Finding(name_of(account), "its token is mounted")
    for pod in pods(documents):
        if pod.spec.get("automountServiceAccountToken") is not False or _token_volumes(pod):
            yield Finding(pod.where, "has a token of its service account")
        if pod.spec.get("serviceAccountName", "default") == "default":
            yield Finding(pod.where, "runs under the default service account")


def _token_volumes(pod: Pod) -> bool:
    sources = [
        source for volume in pod.spec.get("volumes", []) for source in volume.get("projected", {}).get("sources", [])
    ]
    return any("serviceAccountToken" in source for source in sources)


def secret_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield secrets that stand in a manifest: a Secret with content, a value under a telling name, a private key."""
    for secret in of_kind(documents, "Secret"):
        if secret.get("data") or secret.get("stringData"):
            yield Finding(name_of(secret), "holds its secret in the open")
    for where, name, value in _values(documents):
        if SECRET_WORDS.search(name) and not REFERS.search(name):
            yield Finding(where, f"{name} looks like a secret")
        if PRIVATE_KEY.search(value):
            yield Finding(where, f"{name} holds a private key")
        if "://" in value and "\n" not in value and urlsplit(value).password is not None:
            yield Finding(where, f"{name} has a password in its address")
        if name.endswith("_FILE") and SECRET_WORDS.search(name) and not value.startswith("/run/secrets/"):
            yield Finding(where, f"{name} is not below /run/secrets")


def _values(documents: list[Document]) -> Iterator[tuple[str, str, str]]:
    """Yield (where, name, value) of every variable and every key of a ConfigMap."""
    for each in of_kind(documents, "ConfigMap"):
        yield from ((name_of(each), name, str(value)) for name, value in (each.get("data") or {}).items())
    for pod in pods(documents):
        for container in pod.containers():
            for variable in container.get("env", []):
                yield pod.where, variable["name"], str(variable.get("value", ""))


def images(documents: list[Document]) -> Iterator[tuple[str, str]]:
    """Yield (where, image) of every image that is named, by pods and by operators' resources."""
    for pod in pods(documents):
        yield from ((pod.where, container["image"]) for container in pod.containers())
    for cluster in of_kind(documents, "Cluster"):
        yield name_of(cluster), cluster["spec"].get("imageName", "")


def digest_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield images that are not named by digest."""
    yield from (
        Finding(where, f"{image} has no digest") for where, image in images(documents) if not DIGEST.search(image)
    )


def exact_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield images that are named by nothing exact: by no tag, or by one without a number."""
    for where, image in images(documents):
        if not EXACT.search(image):
            yield Finding(where, f"{image} is no exact image")


def bound_findings(documents: list[Document]) -> Iterator[Finding]:
    """Yield pods that may take what they like, or write where nobody looks."""
    for pod in pods(documents):
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
                yield Finding(pod.where, f"volume {volume['name']} has no limit")
        for container in pod.containers():
            yield from (Finding(pod.where, what) for what in _unbounded(dict(container)))
    for workload in of_kind(documents, "Deployment"):
        if not workload["spec"]["template"]["spec"].get("topologySpreadConstraints"):
            yield Finding(name_of(workload), "its pods are not spread")


def _unbounded(container: dict[str, Any]) -> Iterator[str]:
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        missing = {"cpu", "memory", "ephemeral-storage"} - resources.get(kind, {}).keys()
        yield from (f"{container['name']} has no {kind} of {name}" for name in sorted(missing))
    for name, wanted in resources.get("requests", {}).items():
        if quantity(wanted) > quantity(resources.get("limits", {}).get(name, wanted)):
            yield f"{container['name']} asks for more {name} than its limit"
    if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
        yield f"{container['name']} may write to its image"
