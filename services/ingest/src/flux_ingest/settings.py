"""What an operator may set of ingest."""

from __future__ import annotations

from dataclasses import fields

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flux_common.auth.fetching import Fetcher, verifying
from flux_common.auth.keyset import JWKS_BYTES_MAX, KEYS_FRESH_S
from flux_common.contracts.intake import STANDARD, IntakeLimits
from flux_common.runtime.key_refresh import Pace
from flux_common.runtime.lane_service import LaneServiceSettings
from flux_common.settings import AgencySettings, PostgresSettings, Section, ServiceSettings
from flux_common.settings.sections import FilePathOrNone, Milliseconds


class IntakeSettings(Section):
    """How ingest works its lanes, how soon it sees a change of the registry, and how much of a record it reads.

    A body is passed on inside an event of at most 512 KiB, and its reader is recursive: hence the upper bounds. What is
    known of the seal of a quiet log is up to 16 s old: hence the lower bound of `seal_lag_max_s`.
    """

    model_config = SettingsConfigDict(env_prefix="FLUX_INTAKE_")

    batch_records_max: int = Field(1_000, ge=1, le=10_000, description="Records decided in one commit")
    lanes_at_once: int = Field(4, ge=1, description="Lanes worked at the same time; below FLUX_POSTGRES_POOL_MAX")
    registry_refresh_ms: int = Field(5_000, gt=0, description="How often registry and key files are looked at")
    uses_expiry_ms: int = Field(600_000, gt=0, description="How often single uses of dead tokens are forgotten")
    seal_lag_max_s: int = Field(
        30, ge=20, description="How far behind its seal may be before an agency with audit_required waits"
    )
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


class KeySetSettings(Section):
    """How the key sets are kept current that issuers publish at URLs."""

    model_config = SettingsConfigDict(env_prefix="FLUX_JWKS_")

    refresh_ms: Milliseconds = Field(60_000, description="Longest pause between two fetches of an issuer's key set")
    backoff_max_ms: Milliseconds = Field(60_000, description="Longest pause after fetches that failed")
    timeout_ms: Milliseconds = Field(
        5_000, description="Longest time of one fetch, from the connection to the last byte"
    )
    bytes_max: int = Field(JWKS_BYTES_MAX, ge=1_024, le=JWKS_BYTES_MAX, description="Largest key set")
    stale_after_s: int = Field(
        KEYS_FRESH_S, ge=60, description="Age at which keys that nothing confirms verify nothing, also those of files"
    )
    ca_file: FilePathOrNone = Field(
        None, description="CA certificates (PEM) that sign the identity providers'; default: the system's"
    )

    def fetcher(self) -> Fetcher:
        """Return what fetches by these settings."""
        tls = verifying(str(self.ca_file) if self.ca_file else None)
        return Fetcher(tls, self.timeout_ms / 1000, self.bytes_max)

    def pace(self) -> Pace:
        """Return how often."""
        return Pace(self.refresh_ms / 1000, self.backoff_max_ms / 1000)


class IngestSettings(LaneServiceSettings):
    """The settings of the ingest service."""

    agencies: AgencySettings
    intake: IntakeSettings
    jwks: KeySetSettings


class MigrationSettings(ServiceSettings):
    """The settings of `migrate`: the database as `flux_migrate` reaches it."""

    postgres: PostgresSettings
