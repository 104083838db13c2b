"""What an operator may set of transform. It has no database, by design: it decodes strangers' files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from flux_common.settings import KafkaSettings, ServiceSettings
from flux_common.settings.production import is_store_secret
from flux_common.settings.section import Section, read_secret, secret_file
from flux_common.settings.sections import FilePathOrNone

# No secret, and kept beside one: whoever exchanges the one exchanges both.
_BESIDE: Final = "AWS_ACCESS_KEY_ID"


class StoreSettings(Section):
    """Which stores workers may open."""

    model_config = SettingsConfigDict(env_prefix="FLUX_STORE_")

    file_roots: str = Field(
        "", description="Folders that file:// URIs may lie in, separated by colons; none: file:// is refused"
    )

    secrets_dir: Path | None = Field(
        None,
        description="Folder of files named like the variables that stores know (AWS_SECRET_ACCESS_KEY, …), each with that"
        " secret; read at the start; none: a workload identity, or variables where it is not production",
        examples=["/run/secrets/store"],
    )

    @field_validator("secrets_dir")
    @classmethod
    def _holds_stores_secrets(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        if not value.is_dir():
            raise ValueError(f"there is no folder {value}; correct the path or mount the secrets there")
        for path in _files(value):
            if not is_store_secret(path.name) and path.name != _BESIDE:
                raise ValueError(f"{path} is named like no secret of a store; name it AWS_…, AZURE_… or GOOGLE_…")
            secret_file(path)
        return value

    def roots(self) -> tuple[Path, ...]:
        """Return the folders."""
        return tuple(Path(part) for part in self.file_roots.split(os.pathsep) if part)

    def secret_files(self) -> Iterator[tuple[str, Path]]:
        """Yield the file of every secret."""
        yield from (("FLUX_STORE_SECRETS_DIR", path) for path in _files(self.secrets_dir))

    def secrets(self) -> dict[str, SecretStr]:
        """Return what stores are given beside their variables, by name."""
        return {path.name: read_secret(path) for path in _files(self.secrets_dir)}


def _files(folder: Path | None) -> list[Path]:
    """Return the files of a folder; what begins with a dot is how Kubernetes exchanges them."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder else []


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
