"""What an operator may set of ingest."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flux_common.runtime.lane_service import LaneServiceSettings
from flux_common.settings import AgencySettings, PostgresSettings, Section, ServiceSettings


class IntakeSettings(Section):
    """How ingest works its lanes, and how soon it sees a change of the registry."""

    model_config = SettingsConfigDict(env_prefix="FLUX_INTAKE_")

    batch_records_max: int = Field(1_000, ge=1, le=10_000, description="Records decided in one commit")
    lanes_at_once: int = Field(4, ge=1, description="Lanes worked at the same time; below FLUX_POSTGRES_POOL_MAX")
    registry_refresh_ms: int = Field(5_000, gt=0, description="How often registry and key files are looked at")
    uses_expiry_ms: int = Field(600_000, gt=0, description="How often single uses of dead tokens are forgotten")


class IngestSettings(LaneServiceSettings):
    """The settings of the ingest service."""

    agencies: AgencySettings
    intake: IntakeSettings


class MigrationSettings(ServiceSettings):
    """The settings of `migrate`: the database as `flux_migrate` reaches it."""

    postgres: PostgresSettings
