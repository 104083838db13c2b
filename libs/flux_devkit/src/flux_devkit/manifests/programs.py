"""Which program a container runs, and which settings it is given: the environment that its ConfigMaps make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from flux_audit.settings import AuditSettings
from flux_checkpoint.settings import CheckpointSettings
from flux_common.runtime.jobs import MIGRATE, ROLES, TOPICS
from flux_common.settings import Setting, describe
from flux_common.settings.section import SectionSet
from flux_devkit.manifests.documents import Document, Pod, named, pods
from flux_ingest.settings import IngestSettings
from flux_transform.settings import TransformSettings

SERVICES: Final[dict[str, type[SectionSet]]] = {
    "ingest": IngestSettings,
    "checkpoint": CheckpointSettings,
    "transform": TransformSettings,
    "audit": AuditSettings,
}
JOBS: Final[dict[str, type[SectionSet]]] = {job.name: job.settings for job in (ROLES, MIGRATE, TOPICS)}
_IMAGE: Final = re.compile(r"(?:^|/)flux/(?P<service>[a-z]+)(?:[:@].*)?$")


@dataclass(frozen=True, slots=True)
class Program:
    """A container of Flux: what it runs, its pod, its container, and its environment."""

    name: str
    service: str
    pod: Pod
    container: dict[str, Any]
    environment: dict[str, str]

    @property
    def settings(self) -> dict[str, Setting]:
        """Return the settings that the program has, by variable."""
        return {setting.env: setting for setting in describe((SERVICES | JOBS)[self.name])}

    def value(self, variable: str) -> str:
        """Return what a setting is: as given, or its default."""
        return self.environment.get(variable, self.settings[variable].default)


def programs(documents: Iterable[Document]) -> Iterator[Program]:
    """Yield every container that runs an image of Flux."""
    listed = list(documents)
    for pod in pods(listed):
        for container in pod.containers():
            found = _IMAGE.search(container["image"])
            if found:
                command = container.get("args", ["serve"])[0]
                name = found["service"] if command == "serve" else command
                yield Program(name, found["service"], pod, dict(container), _environment(listed, container))


def _environment(documents: list[Document], container: Any) -> dict[str, str]:
    """Return the variables of a container; what it names itself overrides what a ConfigMap says."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found |= _data(documents, source["configMapRef"]["name"])
    return found | {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}


def _data(documents: list[Document], name: str) -> dict[str, str]:
    """Return what a ConfigMap says; one that is not there says nothing here, and `wiring` tells."""
    try:
        return named(documents, "ConfigMap", name).get("data") or {}
    except LookupError:
        return {}
