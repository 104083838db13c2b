"""The sections that the services share. Durations and sizes carry their unit in the name."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from flux_common.settings.section import Section, SectionSet, read_secret, secret_file

SecretPath = Annotated[Path | None, AfterValidator(secret_file)]
Milliseconds = Annotated[int, Field(gt=0)]


def readable_file(path: Path | None) -> Path | None:
    """Return `path` if it is a file, or None; raises ValueError if there is no such file."""
    if path is not None and not path.is_file():
        raise ValueError(f"there is no file {path}; correct the path or put the file there")
    return path


FilePathOrNone = Annotated[Path | None, AfterValidator(readable_file)]


class KafkaSettings(Section):
    """How to reach Kafka."""

    model_config = SettingsConfigDict(env_prefix="FLUX_KAFKA_")

    bootstrap: str = Field(description="Brokers to ask first, host:port[,host:port]", examples=["127.0.0.1:9092"])
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Security protocol; anything but SASL_SSL or SSL is for development"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, where the protocol has SASL"
    )
    sasl_username: str | None = Field(None, description="Principal, where the protocol has SASL", examples=["ingest"])
    sasl_password_file: SecretPath = Field(
        None, description="File that holds the principal's password", examples=["/run/secrets/kafka-password"]
    )
    ca_file: FilePathOrNone = Field(
        None, description="CA certificates (PEM) that sign the brokers'; default: the system's"
    )
    topic_prefix: str = Field(
        "",
        validation_alias="FLUX_TOPIC_PREFIX",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="Put before every topic, group and transactional id; isolates tests that share a broker",
    )
    request_timeout_ms: Milliseconds = Field(20_000, description="Longest wait for one answer of a broker")
    session_timeout_ms: Milliseconds = Field(10_000, description="Silence after which a group gives a member up")
    max_poll_interval_ms: Milliseconds = Field(60_000, description="Longest gap between two polls of a member")
    metadata_max_age_ms: Milliseconds = Field(30_000, description="Age at which topic metadata is asked for again")

    @field_validator("bootstrap")
    @classmethod
    def _hosts_and_ports(cls, value: str) -> str:
        for server in value.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError("each broker is host:port, separated by commas")
        return value

    @model_validator(mode="after")
    def _sasl_complete(self) -> Self:
        if self.protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password_file):
            raise ValueError(
                f"protocol {self.protocol} needs FLUX_KAFKA_SASL_USERNAME and FLUX_KAFKA_SASL_PASSWORD_FILE; set both"
            )
        return self

    def unfit(self) -> Iterator[str]:
        """Yield a connection that anybody on the way could read and write."""
        if not self.protocol.endswith("SSL"):
            yield f"FLUX_KAFKA_PROTOCOL is {self.protocol}: tokens and records pass unprotected; set SASL_SSL or SSL"

    def topic(self, name: str) -> str:
        """Return the name that the topic, group or transactional id `name` has on this broker."""
        return self.topic_prefix + name

    def aiokafka_options(self) -> dict[str, Any]:
        """Return the connection arguments of every aiokafka client, which keeps them: files are read when a client is made."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": self.protocol,
            "request_timeout_ms": self.request_timeout_ms,
            "metadata_max_age_ms": self.metadata_max_age_ms,
        }
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = self.ssl_context()
        if self.protocol.startswith("SASL") and self.sasl_password_file:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = read_secret(self.sasl_password_file).get_secret_value()
        return options

    def confluent_options(self) -> dict[str, Any]:
        """Return the same for confluent-kafka (librdkafka's names)."""
        options: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.protocol,
            "socket.timeout.ms": self.request_timeout_ms,
        }
        if self.protocol.endswith("SSL") and self.ca_file:
            options["ssl.ca.location"] = str(self.ca_file)
        if self.protocol.startswith("SASL") and self.sasl_password_file:
            options["sasl.mechanism"] = self.sasl_mechanism
            options["sasl.username"] = self.sasl_username
            options["sasl.password"] = read_secret(self.sasl_password_file).get_secret_value()
        return options

    def ssl_context(self) -> ssl.SSLContext:
        """Return a verifying TLS context that trusts `ca_file`, or the system's authorities."""
        return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)


class PostgresSettings(Section):
    """How to reach PostgreSQL: over TCP only, for over a Unix socket a stopped client blocks its successor."""

    model_config = SettingsConfigDict(env_prefix="FLUX_POSTGRES_")

    dsn: str = Field(
        description="postgresql://role@host:port/database, without a password",
        examples=["postgresql://flux_ingest@127.0.0.1:5432/flux"],
    )
    password_file: SecretPath = Field(
        None, description="File that holds the role's password", examples=["/run/secrets/postgres-password"]
    )
    pool_min: int = Field(1, ge=0, description="Connections kept open")
    pool_max: int = Field(8, ge=1, description="Connections at most")
    connect_timeout_ms: Milliseconds = Field(5_000, description="Longest wait for a new connection")
    statement_timeout_ms: Milliseconds = Field(30_000, description="Longest statement")
    lock_timeout_ms: Milliseconds = Field(5_000, description="Longest wait for a lock")
    idle_in_transaction_timeout_ms: Milliseconds = Field(
        5_000, description="Longest idleness inside a transaction; a stopped process must not hold its successor up"
    )
    tcp_user_timeout_ms: Milliseconds = Field(10_000, description="Silence after which the server drops a connection")

    accept_old_server: bool = Field(
        False,
        description="Accept a PostgreSQL below the releases that mend row-level security (15.20, 16.16, 17.12, 18.6)",
    )

    @field_validator("dsn")
    @classmethod
    def _tcp_without_password(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("the form is postgresql://role@host:port/database")
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError("it holds a password; move that into a file and set FLUX_POSTGRES_PASSWORD_FILE")
        if not parts.hostname or parts.hostname.startswith(("/", "%2f")) or "host" in parse_qs(parts.query):
            raise ValueError("name a TCP host; Unix sockets are refused (a stopped client would block its successor)")
        return value

    @model_validator(mode="after")
    def _pool_bounds(self) -> Self:
        if self.pool_min > self.pool_max:
            raise ValueError("FLUX_POSTGRES_POOL_MIN is above FLUX_POSTGRES_POOL_MAX; lower it")
        return self

    def unfit(self) -> Iterator[str]:
        """Yield a connection whose server is not proven."""
        asked = parse_qs(urlsplit(self.dsn).query)
        env, roots = self.env_name("dsn"), asked.get("sslrootcert", [])
        if asked.get("sslmode") != ["verify-full"] or not roots:
            yield f"{env} asks for no verified TLS; end it with ?sslmode=verify-full&sslrootcert=/path/of/ca.pem"
        yield from (
            f"{env} names sslrootcert={root}, which is no file; mount the CA there"
            for root in roots
            if not Path(root).is_file()
        )

    def doubtful(self) -> Iterator[str]:
        """Yield a server that may leak rows."""
        if self.accept_old_server:
            yield f"{self.env_name('accept_old_server')}: row-level security has holes on an old server; upgrade it"

    def asyncpg_options(self, application_name: str) -> dict[str, Any]:
        """Return the arguments of `asyncpg.connect`; reads the secret's file each time, so it can be rotated."""
        options: dict[str, Any] = {
            "dsn": self.dsn,
            "timeout": self.connect_timeout_ms / 1000,
            "server_settings": {
                "application_name": application_name,
                "statement_timeout": str(self.statement_timeout_ms),
                "lock_timeout": str(self.lock_timeout_ms),
                "idle_in_transaction_session_timeout": str(self.idle_in_transaction_timeout_ms),
                "tcp_user_timeout": str(self.tcp_user_timeout_ms),
            },
        }
        if self.password_file:
            options["password"] = read_secret(self.password_file).get_secret_value()
        return options


class OpsSettings(Section):
    """The operations port (probes and metrics) and how the process starts, lives and stops."""

    model_config = SettingsConfigDict(env_prefix="FLUX_OPS_")

    host: str = Field("127.0.0.1", description="Address of the operations port; 0.0.0.0 in a container")
    port: int = Field(8080, ge=0, le=65535, description="Operations port; 0 takes a free one and logs it")
    loop_stall_ms: Milliseconds = Field(
        90_000, description="Gap between two ticks of a loop after which /livez fails; above the longest legal gap"
    )
    drain_grace_ms: Milliseconds = Field(
        30_000, description="Time that tasks get to finish after SIGTERM before they are cancelled"
    )
    wait_backoff_max_ms: Milliseconds = Field(
        5_000, description="Longest pause between two tries to reach what the start-up waits for"
    )


class LogSettings(Section):
    """What is logged, and how it looks."""

    model_config = SettingsConfigDict(env_prefix="FLUX_LOG_")

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written")
    format: Literal["json", "console"] = Field("json", description="json: one object a line; console: for people")


class TelemetrySettings(Section):
    """Where spans go; metrics are always on the operations port."""

    model_config = SettingsConfigDict(env_prefix="FLUX_TELEMETRY_")

    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="OTLP/HTTP traces endpoint; none: no export",
        examples=["http://127.0.0.1:4318/v1/traces"],
    )
    trace_file: Path | None = Field(
        None, validation_alias="FLUX_TRACE_FILE", description="File that gets one JSON span a line; for tests"
    )
    sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of new traces that is recorded")

    def doubtful(self) -> Iterator[str]:
        """Yield spans that pass unprotected, or fill a disk."""
        if self.otlp_endpoint and self.otlp_endpoint.startswith("http:"):
            yield "FLUX_TELEMETRY_OTLP_ENDPOINT is http: spans pass unprotected; use https unless it is on this host"
        if self.trace_file is not None:
            yield "FLUX_TRACE_FILE is for tests: it grows without end; unset it"


class AgencySettings(Section):
    """Which agencies there are."""

    model_config = SettingsConfigDict(env_prefix="FLUX_AGENCIES_")

    file: Path = Field(description="The agency registry", examples=["/etc/flux/agencies.yaml"])

    @field_validator("file")
    @classmethod
    def _exists(cls, value: Path) -> Path:
        readable_file(value)
        return value


class InstallationSettings(Section):
    """What the installation is for."""

    environment: Literal["development", "production"] = Field(
        "development",
        description="production refuses what is fit for development alone: connections without TLS, secrets in variables or"
        " in files that others may read",
    )


class ServiceSettings(SectionSet):
    """What every service has; a service's own settings subclass this and add sections."""

    installation: InstallationSettings
    ops: OpsSettings
    log: LogSettings
    telemetry: TelemetrySettings
