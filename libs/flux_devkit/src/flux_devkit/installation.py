"""One Flux on given servers: roles, schema, topics, agencies with keys, and the settings of each service.

Everything here is repeatable: preparing twice changes nothing. Passwords and keys are drawn once and kept in the home's
private folder; a database and a topic prefix of its own make an installation for one test on servers that others share.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from flux_audit.adapters.signer import log_verifier_key
from flux_client.development import EXAMPLE_AGENCIES, DevelopmentAgency, write_development_registry
from flux_client.keys import ensure_key, private_key_path
from flux_common.contracts.access import TOPICS_JOB, principal_of_service, principals
from flux_common.kafka.admin import create_topics
from flux_common.kafka.logins import apply, difference
from flux_common.postgres.migrations import LOGIN_ROLES, create_roles, migrate
from flux_common.settings import KafkaSettings
from flux_devkit.home import write_private
from flux_devkit.secured import ADMIN, SecuredKafka
from flux_devkit.servers import Servers
from flux_devkit.services import ServiceOptions

SERVICES = ("ingest", "checkpoint", "transform", "audit")
TREE_HEAD_KEY = "audit-tree-heads"
ORIGIN_PREFIX = "flux.example/development"


@dataclass(frozen=True)
class Installation:
    """Where one Flux lives. `keys` is private; `folder` holds what agencies may read and write through file URLs."""

    servers: Servers
    keys: Path
    folder: Path
    database: str
    topic_prefix: str = ""
    agencies: Sequence[DevelopmentAgency] = EXAMPLE_AGENCIES
    source_roots: Sequence[Path] = ()
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secured: SecuredKafka | None = None  # brokers with logins, instead of the servers' Kafka: each service gets its own
    role_password: str | None = None  # of every role; roles belong to the server, so installations that share one agree

    async def prepare(self) -> None:
        """Create roles, schema, topics, registry and keys; what is there stays. Raises FluxError."""
        self.registry()
        ensure_key(self.keys, TREE_HEAD_KEY, "EdDSA")
        await create_roles(self.admin_dsn, {role: self.password(role) for role in LOGIN_ROLES})
        await migrate(self.role_dsn("flux_migrate"), password=self.password("flux_migrate"))
        if self.secured is not None:
            await self._prepare_logins(self.secured)
        job = self.kafka(principal_of_service(TOPICS_JOB))
        await create_topics(job, [agency.agency_id for agency in self.agencies], development=True)

    async def _prepare_logins(self, kafka: SecuredKafka) -> None:
        """Give everybody a login, and grants and quotas as the code says them; nobody here has more."""
        everybody = principals(dict.fromkeys(agency.agency_id for agency in self.agencies))
        await apply(self.kafka(), await difference(self.kafka(), everybody))
        await kafka.make_logins([one.name for one in everybody])

    def prepare_now(self) -> None:
        """Prepare, for callers without an event loop."""
        asyncio.run(self.prepare())

    def registry(self) -> Path:
        """Write the agency registry and return its path."""
        roots = [root.resolve() for root in (self.folder, *self.source_roots)]
        for root in roots:
            root.mkdir(parents=True, exist_ok=True)
        prefixes = [f"{root.as_uri()}/" for root in roots]
        return write_development_registry(
            self.keys, self.agencies, source_prefixes=prefixes, destination_prefixes=prefixes[:1]
        )

    def kafka(self, login: str | None = None) -> KafkaSettings:
        """Return the Kafka settings of a client; where there are logins, of `login`, or of the administrator."""
        if self.secured is not None:
            return self.secured.settings(login or ADMIN, self.topic_prefix)
        return KafkaSettings(bootstrap=self.servers.kafka_bootstrap, topic_prefix=self.topic_prefix)

    def verifier_key(self, agency_id: str) -> str:
        """Return what a verifier of an agency's log is given: the note verifier key of its origin."""
        return log_verifier_key(private_key_path(self.keys, TREE_HEAD_KEY), ORIGIN_PREFIX, agency_id)

    @property
    def admin_dsn(self) -> str:
        """The superuser's DSN of this installation's database."""
        return urlunsplit(urlsplit(self.servers.postgres_dsn)._replace(path=f"/{self.database}"))

    def role_dsn(self, role: str) -> str:
        """Return the DSN of a role, without its password."""
        parts = urlsplit(self.admin_dsn)
        return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))

    def password(self, role: str) -> str:
        """Return a role's password, drawn at first."""
        return self.password_file(role).read_text()

    def password_file(self, role: str) -> Path:
        """Return the file that holds a role's password."""
        path = self.keys / "postgres" / role
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(path, self.role_password or secrets.token_urlsafe(24))
        return path

    def environment(self, service: str) -> dict[str, str]:
        """Return the `FLUX_*` variables of a service."""
        login = principal_of_service(service)
        plain = {"FLUX_KAFKA_BOOTSTRAP": self.servers.kafka_bootstrap}
        variables = {
            **(self.secured.environment(login) if self.secured else plain),
            "FLUX_TOPIC_PREFIX": self.topic_prefix,
        }
        if service == "transform":
            roots = [str(root.resolve()) for root in (self.folder, *self.source_roots)]
            variables |= {"FLUX_STORE_FILE_ROOTS": ":".join(roots)}
        else:
            variables |= {
                "FLUX_POSTGRES_DSN": self.role_dsn(f"flux_{service}"),
                "FLUX_POSTGRES_PASSWORD_FILE": str(self.password_file(f"flux_{service}")),
            }
        if service in ("ingest", "transform", "checkpoint"):
            variables |= {"FLUX_AGENCIES_FILE": str(self.keys / "agencies.yaml")}
        if service == "audit":
            variables |= {
                "FLUX_AUDIT_KEY_FILE": str(private_key_path(self.keys, TREE_HEAD_KEY)),
                "FLUX_AUDIT_ORIGIN_PREFIX": ORIGIN_PREFIX,
            }
        return {**variables, **self.overrides.get(service, {})}

    def services(self, names: Sequence[str] = SERVICES) -> list[ServiceOptions]:
        """Return how to run the services of this installation."""
        return [ServiceOptions(name, f"flux_{name}", self.environment(name)) for name in names]
