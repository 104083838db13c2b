"""What an operator may set of audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator
from pydantic_settings import SettingsConfigDict

from flux_audit.domain.tree_head import valid_name
from flux_common.runtime.lane_service import LaneServiceSettings
from flux_common.settings.section import Section, SectionSet, secret_file


class LogSettings(Section):
    """Whose logs these are, who signs them, and how often."""

    model_config = SettingsConfigDict(env_prefix="FLUX_AUDIT_")

    key_file: Annotated[Path, AfterValidator(secret_file)] = Field(
        description="Private key that signs tree heads (PEM, PKCS#8): Ed25519, or ECDSA over P-256",
        examples=["/run/secrets/audit-tree-heads.key.pem"],
    )
    origin_prefix: str = Field(
        "flux.example/audit",
        description="Names this installation's logs: a log's origin is prefix/agency, a URL without scheme; never change it",
    )
    sign_every_s: float = Field(1.0, gt=0, description="Longest time until something new is under a signed head")
    sign_leaves: int = Field(1_000, ge=1, description="Leaves after which a head is signed earlier")

    @field_validator("origin_prefix")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not valid_name(value) or value.startswith("/") or "://" in value:
            raise ValueError("it is a host and path without scheme, space or plus, such as audit.agency.example/flux")
        return value


class AuditSettings(LaneServiceSettings):
    """The settings of the audit service."""

    audit: LogSettings


class KeySettings(SectionSet):
    """The settings of `verifier-key`: it needs neither Kafka nor PostgreSQL."""

    audit: LogSettings
