"""Production refuses what is fit for development alone: each fault one line, with the variable and without the value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux_audit.__main__ import PROGRAM
from flux_common.kernel.errors import FluxError
from flux_common.runtime.cli import main
from flux_common.runtime.jobs import RolesSettings, TopicsSettings
from flux_common.settings import KafkaSettings, PostgresSettings, SectionSet, ServiceSettings, load, warnings_of

SECRET = "correct-horse-battery"


class WholeSettings(ServiceSettings):
    """A service with both servers."""

    kafka: KafkaSettings
    postgres: PostgresSettings


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Settings that production takes; returns the file of the password."""
    for name in [name for name in os.environ if name.startswith(("FLUX_", "PG", "AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    ca, password = tmp_path / "ca.pem", tmp_path / "password"
    ca.touch()
    password.write_text(SECRET)
    password.chmod(0o440)
    for name, value in {
        "FLUX_ENVIRONMENT": "production",
        "FLUX_KAFKA_BOOTSTRAP": "broker:9093",
        "FLUX_KAFKA_PROTOCOL": "SASL_SSL",
        "FLUX_KAFKA_SASL_USERNAME": "audit",
        "FLUX_KAFKA_SASL_PASSWORD_FILE": str(password),
        "FLUX_POSTGRES_DSN": f"postgresql://flux_audit@db:5432/flux?sslmode=verify-full&sslrootcert={ca}",
        "FLUX_POSTGRES_PASSWORD_FILE": str(password),
    }.items():
        monkeypatch.setenv(name, value)
    return password


def faults(settings_class: type[SectionSet] = WholeSettings) -> list[str]:
    """Return what is refused; no line repeats the secret."""
    try:
        load(settings_class)
    except FluxError as refused:
        found = refused.message.splitlines()
    else:
        found = []
    assert SECRET not in "".join(found)
    return found


def test_sound_settings_are_taken() -> None:
    """TLS to both servers, and secrets in private files."""
    assert faults() == []
    assert warnings_of(load(WholeSettings)) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FLUX_KAFKA_PROTOCOL", "PLAINTEXT", "FLUX_KAFKA_PROTOCOL"),
        ("FLUX_KAFKA_PROTOCOL", "SASL_PLAINTEXT", "FLUX_KAFKA_PROTOCOL"),
        ("FLUX_POSTGRES_DSN", "postgresql://flux_audit@db:5432/flux", "verify-full"),
        ("FLUX_POSTGRES_DSN", "postgresql://flux_audit@db:5432/flux?sslmode=require", "verify-full"),
        ("FLUX_POSTGRES_DSN", "postgresql://a@db/flux?sslmode=verify-full&sslrootcert=/no/ca", "which is no file"),
        ("FLUX_POSTGRES_PASSWORD", SECRET, "FLUX_POSTGRES_PASSWORD holds a secret"),
        ("FLUX_KAFKA_SASL_PASSWORD", SECRET, "FLUX_KAFKA_SASL_PASSWORD holds a secret"),
        ("FLUX_AUDIT_KEY", SECRET, "FLUX_AUDIT_KEY holds a secret"),
        ("FLUX_TOKEN", SECRET, "FLUX_TOKEN holds a secret"),
        ("PGPASSWORD", SECRET, "PGPASSWORD holds a secret"),
        ("AWS_SECRET_ACCESS_KEY", SECRET, "AWS_SECRET_ACCESS_KEY holds a secret"),
        ("AWS_SESSION_TOKEN", SECRET, "AWS_SESSION_TOKEN holds a secret"),
        ("AWS_TOKEN", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("AWS_SSE_CUSTOMER_KEY_BASE64", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("AZURE_STORAGE_ACCOUNT_KEY", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("AZURE_STORAGE_SAS_KEY", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("AZURE_STORAGE_SAS_TOKEN", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("AZURE_CLIENT_SECRET", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", SECRET, "FLUX_STORE_SECRETS_DIR"),
        ("FLUX_ANYTHING", f"-----BEGIN PRIVATE KEY-----\n{SECRET}", "holds a private key"),
        ("FLUX_ANYTHING", f"https://user:{SECRET}@host/x", "a password in a URL"),
        ("FLUX_ANYTHING", f"eyJhbGciOiJFZERTQSJ9.{SECRET}.c2ln", "holds a token"),
    ],
)
def test_what_is_for_development_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    """One fault, which names the variable; in development the same is taken."""
    monkeypatch.setenv(name, value)
    found = faults()
    monkeypatch.setenv("FLUX_ENVIRONMENT", "development")

    assert [said in fault for fault in found] == [True]
    assert faults() == []


def test_what_leads_to_a_stores_secret_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of keys, files of a workload identity: they are taken from variables as ever."""
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_SSE_KMS_KEY_ID",
        "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS",
    ):  # fmt: skip
        monkeypatch.setenv(name, "x")

    assert faults() == []


@pytest.mark.parametrize("mode", [0o444, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused(sound: Path, mode: int) -> None:
    """Every variable that leads to the file is named."""
    sound.chmod(mode)

    assert [fault.split(" ")[0] for fault in faults()] == [
        "FLUX_KAFKA_SASL_PASSWORD_FILE",
        "FLUX_POSTGRES_PASSWORD_FILE",
    ]


def test_jobs_are_held_to_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The passwords of `roles`, and the replicas of `topics`."""
    (tmp_path / "flux_audit").write_text(SECRET)
    (tmp_path / "flux_audit").chmod(0o644)
    monkeypatch.setenv("FLUX_ROLES_PASSWORDS_DIR", str(tmp_path))
    monkeypatch.setenv("FLUX_TOPICS_DEVELOPMENT", "true")
    monkeypatch.setenv("FLUX_AGENCIES_FILE", str(tmp_path / "flux_audit"))

    assert [fault.split(" ")[0] for fault in faults(RolesSettings)] == ["FLUX_ROLES_PASSWORDS_DIR"]
    assert [fault.split(" ")[0] for fault in faults(TopicsSettings)] == ["FLUX_TOPICS_DEVELOPMENT"]


def test_what_is_rarely_meant_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An old server, spans in the clear, a file of traces: legal, and said."""
    monkeypatch.setenv("FLUX_POSTGRES_ACCEPT_OLD_SERVER", "true")
    monkeypatch.setenv("FLUX_TELEMETRY_OTLP_ENDPOINT", "http://collector:4318/v1/traces")
    monkeypatch.setenv("FLUX_TRACE_FILE", str(tmp_path / "spans"))
    found = warnings_of(load(WholeSettings))
    monkeypatch.setenv("FLUX_ENVIRONMENT", "development")

    assert len(found) == 3
    assert SECRET not in "".join(found)
    assert warnings_of(load(WholeSettings)) == []


def test_check_settings_says_all_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sound: Path
) -> None:
    """Exit status 2 with every fault; with sound settings 0, the warnings, and what they are sound for."""
    monkeypatch.setenv("FLUX_AUDIT_KEY_FILE", str(sound))
    monkeypatch.setenv("FLUX_POSTGRES_ACCEPT_OLD_SERVER", "true")
    assert main(PROGRAM, ["check-settings"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("All settings are valid, for production (FLUX_ENVIRONMENT).\n")
    assert said.err.startswith("warning: FLUX_POSTGRES_ACCEPT_OLD_SERVER")
    sound.chmod(0o644)
    assert main(PROGRAM, ["check-settings"]) == 2
    assert "FLUX_AUDIT_KEY_FILE leads to" in capsys.readouterr().err
