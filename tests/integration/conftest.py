"""Databases with Flux's schema, made once a session as a template, and logins for its roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from flux_common.postgres.database import Database
from flux_common.postgres.migrations import LOGIN_ROLES, create_roles, migrate, reader_of
from flux_common.settings import PostgresSettings
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.plugin import Database as TestDatabase

TEMPLATE = "flux_template"
READERS_OF = ("loc", "nasa")  # agencies with a reader login of their own


@pytest.fixture(scope="session")
def database_template(postgres_server: PostgresServer) -> str:
    """A template with roles and schema."""
    template = postgres_server.create_database(TEMPLATE)
    logins = [*LOGIN_ROLES, *map(reader_of, READERS_OF)]
    asyncio.run(create_roles(template.dsn, dict.fromkeys(logins, ROLE_PASSWORD), agencies=READERS_OF))
    asyncio.run(migrate(template.dsn_as("flux_migrate", ROLE_PASSWORD)))
    return TEMPLATE


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The password of every role, in a private file."""
    path = tmp_path_factory.mktemp("secrets") / "password"
    path.write_text(ROLE_PASSWORD)
    path.chmod(0o600)
    return path


SettingsFor = Callable[[str], PostgresSettings]


@pytest.fixture
def settings_for(database: TestDatabase, password_file: Path) -> SettingsFor:
    """Settings of a role on this test's database."""

    def settings(role: str) -> PostgresSettings:
        dsn = database.dsn_as(role, "").replace(f"{role}:@", f"{role}@")
        return PostgresSettings(dsn=dsn, password_file=password_file)

    return settings


@pytest.fixture
async def checkpoint_database(settings_for: SettingsFor) -> AsyncIterator[Database]:
    """The checkpoint service's login."""
    opened = await Database.open(settings_for("flux_checkpoint"), "test")
    yield opened
    await opened.close()
