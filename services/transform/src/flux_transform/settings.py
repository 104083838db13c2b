"""What an operator may set of transform. It has no database, by design: it decodes strangers' files."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flux_common.settings import KafkaSettings, ServiceSettings
from flux_common.settings.section import Section
from flux_common.settings.sections import FilePathOrNone


class StoreSettings(Section):
    """Which stores workers may open."""

    model_config = SettingsConfigDict(env_prefix="FLUX_STORE_")

    file_roots: str = Field(
        "", description="Folders that file:// URIs may lie in, separated by colons; none: file:// is refused"
    )

    def roots(self) -> tuple[Path, ...]:
        """Return the folders."""
        return tuple(Path(part) for part in self.file_roots.split(os.pathsep) if part)


class WorkSettings(Section):
    """How much a worker does at once."""

    model_config = SettingsConfigDict(env_prefix="FLUX_WORK_")

    items_at_once: int = Field(0, ge=0, le=256, description="Items worked at once; 0: one for each core")
    processes: int = Field(0, ge=0, le=256, description="Decoder processes; 0: one for each core")
    alive_s: float = Field(30, gt=0, description="Seconds between two signs of life of an item")

    def places(self) -> int:
        """Return how many items are worked at once."""
        return self.items_at_once or cores()

    def decoders(self) -> int:
        """Return how many decoder processes there are."""
        return self.processes or cores()


class BoundSettings(Section):
    """What bounds each agency's sources and destinations."""

    model_config = SettingsConfigDict(env_prefix="FLUX_AGENCIES_")

    file: FilePathOrNone = Field(
        None,
        description="The agency registry: its prefixes bound what each agency's runs may open; none: every store may be",
        examples=["/etc/flux/agencies.yaml"],
    )
    refresh_ms: int = Field(5_000, gt=0, description="How often the registry and its key files are looked at")


class TransformSettings(ServiceSettings):
    """The settings of the transform service."""

    kafka: KafkaSettings
    agencies: BoundSettings
    store: StoreSettings
    work: WorkSettings


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
