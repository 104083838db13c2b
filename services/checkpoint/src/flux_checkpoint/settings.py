"""What an operator may set of checkpoint."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from flux_common.runtime.lane_service import LaneServiceSettings
from flux_common.settings.section import Section
from flux_common.settings.sections import FilePathOrNone


class DispatchSettings(Section):
    """How patient checkpoint is with workers, and how long it keeps what ended. Seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="FLUX_DISPATCH_")

    stall_after_s: float = Field(300, gt=0, description="Silence of a started item after which it is given anew")
    slice_wall_max_s: float = Field(1800, gt=0, description="Longest time without a slice, whatever the worker says")
    queued_max_s: float = Field(86_400, gt=0, description="Longest time in the queue before an item is dispatched anew")
    backoff_min_s: float = Field(1, gt=0, description="First pause before another attempt; doubles with each")
    backoff_max_s: float = Field(300, gt=0, description="Longest pause before another attempt")
    run_ttl_days: float = Field(30, gt=0, description="Days after which an unfinished run fails")
    keep_days: float = Field(365, gt=0, description="Days that an ended run's checkpoints are kept")


class ExpirySettings(Section):
    """How old rows go. Ended runs expire as was written down at their end.

    The registry's retention goes before `events_keep_days` here and `FLUX_DISPATCH_KEEP_DAYS`.
    """

    model_config = SettingsConfigDict(env_prefix="FLUX_EXPIRY_")

    agencies_file: FilePathOrNone = Field(
        None,
        validation_alias="FLUX_AGENCIES_FILE",
        description="The agency registry, for each agency's own retention; none: the settings hold for all",
        examples=["/etc/flux/agencies.yaml"],
    )
    interval_ms: int = Field(600_000, gt=0, description="How often what is due expires")
    events_keep_days: float = Field(90, gt=0, description="Days that an ended run's history is kept")
    events_a_step: int = Field(1_000, ge=1, le=100_000, description="Lines of history that expire in one commit")
    runs_a_step: int = Field(10, ge=1, le=1_000, description="Runs that expire in one commit, with items and chains")


class CheckpointSettings(LaneServiceSettings):
    """The settings of the checkpoint service."""

    dispatch: DispatchSettings
    expiry: ExpirySettings
