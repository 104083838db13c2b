"""What an operator may set of ingest."""

from __future__ import annotations

from dataclasses import fields

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flux_common.contracts.intake import STANDARD, IntakeLimits
from flux_common.runtime.lane_service import LaneServiceSettings
from flux_common.settings import AgencySettings, PostgresSettings, Section, ServiceSettings


class IntakeSettings(Section):
    """How ingest works its lanes, how soon it sees a change of the registry, and how much of a record it reads.

    A body is passed on inside an event of at most 512 KiB, and its reader is recursive: hence the upper bounds.
    """

    model_config = SettingsConfigDict(env_prefix="FLUX_INTAKE_")

    batch_records_max: int = Field(1_000, ge=1, le=10_000, description="Records decided in one commit")
    lanes_at_once: int = Field(4, ge=1, description="Lanes worked at the same time; below FLUX_POSTGRES_POOL_MAX")
    registry_refresh_ms: int = Field(5_000, gt=0, description="How often registry and key files are looked at")
    uses_expiry_ms: int = Field(600_000, gt=0, description="How often single uses of dead tokens are forgotten")
    value_bytes_max: int = Field(STANDARD.value_bytes_max, ge=1_024, le=393_216, description="Bytes of a body")
    depth_max: int = Field(STANDARD.depth_max, ge=8, le=128, description="Levels of a body")
    tokens_max: int = Field(STANDARD.tokens_max, ge=256, le=65_536, description="JSON tokens of a body")
    string_bytes_max: int = Field(STANDARD.string_bytes_max, ge=1_024, le=393_216, description="Bytes of one string")
    name_bytes_max: int = Field(STANDARD.name_bytes_max, ge=64, le=4_096, description="Bytes of a member's name")
    headers_max: int = Field(STANDARD.headers_max, ge=8, le=512, description="Headers of a record")
    header_bytes_max: int = Field(
        STANDARD.header_bytes_max, ge=1_024, le=65_536, description="Bytes of one header of the envelope"
    )

    def limits(self) -> IntakeLimits:
        """Return the bounds of one record."""
        return IntakeLimits(**{field.name: getattr(self, field.name) for field in fields(IntakeLimits)})


class IngestSettings(LaneServiceSettings):
    """The settings of the ingest service."""

    agencies: AgencySettings
    intake: IntakeSettings


class MigrationSettings(ServiceSettings):
    """The settings of `migrate`: the database as `flux_migrate` reaches it."""

    postgres: PostgresSettings
