"""The one-shot jobs of an installation: `roles`, `migrate`, `topics`. A service's `__main__` offers those that it names.

Each brings one thing to the state that this release needs and ends: roles and passwords of the PostgreSQL cluster, the
schema, the topics. All are safe to repeat and safe to run twice at once, none deletes anything, and what cannot be done
ends with exit code 1, so that an orchestrator tries again. They need three different logins, which is why they are three:
an administrator's, `flux_migrate`'s, and a Kafka principal that may create topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from flux_common.auth.registry_file import load_registry
from flux_common.kafka.admin import create_topics
from flux_common.observability.logging import get_logger
from flux_common.postgres.migrations import LOGIN_ROLES, READER_CONNECTIONS, create_roles, migrate, reader_of
from flux_common.runtime.cli import Job, JobSettings
from flux_common.settings import AgencySettings, KafkaSettings, PostgresSettings, Section
from flux_common.settings.section import read_secret, secret_file
from flux_common.settings.sections import FilePathOrNone

log = get_logger(__name__)


class RoleCreation(Section):
    """Where the passwords of the cluster's roles come from, and who may read."""

    model_config = SettingsConfigDict(env_prefix="FLUX_ROLES_")

    passwords_dir: Path = Field(
        description="Folder with one file for each role, named like it, that holds its password; a role without a file"
        " keeps the password that it has",
        examples=["/run/secrets"],
    )
    agencies_file: FilePathOrNone = Field(
        None,
        validation_alias="FLUX_AGENCIES_FILE",
        description="The agency registry: each of its agencies gets a reader login of its own, flux_reader_<agency>",
    )
    strict: bool = Field(
        False, description="Strict mode: only agencies' own readers can log in; flux_reader, who may choose, cannot"
    )
    reader_connections: int = Field(
        READER_CONNECTIONS,
        ge=1,
        description="Connections that each agency's own reader may have at once; of all readers, they and the services'"
        " pools must fit into max_connections",
    )

    @field_validator("passwords_dir")
    @classmethod
    def _is_a_folder(cls, value: Path) -> Path:
        if not value.is_dir():
            raise ValueError(f"there is no folder {value}; correct the path or mount the secrets there")
        return value

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for path in self.files(LOGIN_ROLES).values():
            secret_file(path)
        if self.strict and self.agencies_file is None:
            raise ValueError("FLUX_ROLES_STRICT leaves nobody who could read; set FLUX_AGENCIES_FILE, too")
        return self

    def secret_files(self) -> Iterator[tuple[str, Path]]:
        """Yield the file of every role's password."""
        return (("FLUX_ROLES_PASSWORDS_DIR", path) for path in sorted(self.passwords_dir.glob("flux_*")))

    def files(self, roles: Iterable[str]) -> dict[str, Path]:
        """Return the files that are there, by role."""
        paths = {role: self.passwords_dir / role for role in roles}
        return {role: path for role, path in paths.items() if path.exists()}


class RolesSettings(JobSettings):
    """The settings of `roles`: the database as an administrator reaches it."""

    postgres: PostgresSettings
    roles: RoleCreation


class MigrateSettings(JobSettings):
    """The settings of `migrate`: the database as `flux_migrate` reaches it."""

    postgres: PostgresSettings


class TopicCreation(Section):
    """How topics are created."""

    model_config = SettingsConfigDict(env_prefix="FLUX_TOPICS_")

    development: bool = Field(False, description="One replica of each topic, for a single broker; never in production")
    replication: int | None = Field(None, ge=1, le=7, description="Replicas of each topic; none: 3, in development 1")

    def unfit(self) -> Iterator[str]:
        """Yield topics that one broker's death would take along."""
        if self.development or self.replication == 1:
            yield "FLUX_TOPICS_DEVELOPMENT or FLUX_TOPICS_REPLICATION=1 leaves one copy of each record; unset it"


class TopicsSettings(JobSettings):
    """The settings of `topics`."""

    kafka: KafkaSettings
    agencies: AgencySettings
    topics: TopicCreation


async def make_roles(settings: RolesSettings) -> None:
    """Create the roles, the agencies' readers, and set the passwords that are given."""
    given = settings.roles
    agencies = sorted(load_registry(given.agencies_file).agencies) if given.agencies_file else []
    roles = [*LOGIN_ROLES, *map(reader_of, agencies)]
    passwords = {role: read_secret(path).get_secret_value() for role, path in given.files(roles).items()}
    for warning in await create_roles(
        _dsn_with_password(settings.postgres),
        passwords,
        agencies=agencies,
        strict=given.strict,
        reader_connections=given.reader_connections,
    ):
        log.warning("not done: the administrator may not", problem=warning)
    log.info("roles are there", roles=roles, passwords_set=sorted(passwords), strict=given.strict)


async def migrate_schema(settings: MigrateSettings) -> None:
    """Apply the migrations that the database has not had yet."""
    file = settings.postgres.password_file
    applied = await migrate(settings.postgres.dsn, password=read_secret(file).get_secret_value() if file else None)
    log.info("schema is current", applied=applied)


async def make_topics(settings: TopicsSettings) -> None:
    """Create the topics of the catalogue that are missing, for every agency of the registry."""
    agencies = sorted(load_registry(settings.agencies.file).agencies)
    development, replication = settings.topics.development, settings.topics.replication
    report = await create_topics(settings.kafka, agencies, development=development, replication=replication)
    log.info("topics are there", topics=len(report.ids), created=report.created, drift=report.drift)


def _dsn_with_password(settings: PostgresSettings) -> str:
    if settings.password_file is None:
        return settings.dsn
    parts = urlsplit(settings.dsn)
    login, _, server = parts.netloc.rpartition("@")
    password = quote(read_secret(settings.password_file).get_secret_value(), safe="")
    return urlunsplit(parts._replace(netloc=f"{login}:{password}@{server}"))


ROLES: Final = Job(
    "roles",
    "Create the roles of the PostgreSQL cluster and set their passwords, as an administrator; safe to repeat.",
    RolesSettings,
    make_roles,
)
MIGRATE: Final = Job(
    "migrate",
    "Bring the schema up to date, as flux_migrate; forward only, safe to repeat.",
    MigrateSettings,
    migrate_schema,
)
TOPICS: Final = Job(
    "topics",
    "Create the topics that are missing, for every agency of the registry; deletes and alters nothing, safe to repeat.",
    TopicsSettings,
    make_topics,
)
