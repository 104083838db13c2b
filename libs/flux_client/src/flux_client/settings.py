"""What the client needs to know, read from the environment like every setting of Flux.

Each need is a set of its own, so that a command asks for what it uses and for nothing else: whoever only reads from
PostgreSQL names no brokers.
"""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from flux_common.settings import KafkaSettings, PostgresSettings, SectionSet


class ReaderSettings(PostgresSettings):
    """How to reach PostgreSQL as `flux_reader`."""

    model_config = SettingsConfigDict(env_prefix="FLUX_READER_")


class IngestLedgerSettings(PostgresSettings):
    """How to reach ingest's own tables, where an operator may."""

    model_config = SettingsConfigDict(env_prefix="FLUX_INGEST_")


class CheckpointLedgerSettings(PostgresSettings):
    """How to reach checkpoint's own tables, where an operator may."""

    model_config = SettingsConfigDict(env_prefix="FLUX_CHECKPOINT_")


class AuditLedgerSettings(PostgresSettings):
    """How to reach audit's own tables, where an operator may."""

    model_config = SettingsConfigDict(env_prefix="FLUX_AUDIT_")


LEDGERS: dict[str, type[PostgresSettings]] = {
    "ingest": IngestLedgerSettings,
    "checkpoint": CheckpointLedgerSettings,
    "audit": AuditLedgerSettings,
}


class KafkaNeeds(SectionSet):
    """Brokers alone."""

    kafka: KafkaSettings


class ReaderNeeds(SectionSet):
    """The reader's connection alone."""

    reader: ReaderSettings
