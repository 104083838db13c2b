"""Settings: where they are read from, what is refused, and how it is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError
from flux_common.settings import (
    AgencySettings,
    KafkaSettings,
    OpsSettings,
    PostgresSettings,
    ServiceSettings,
    describe,
    explain,
    load,
)


class WholeSettings(ServiceSettings):
    """A service with every shared section."""

    kafka: KafkaSettings
    postgres: PostgresSettings
    agencies: AgencySettings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLUX_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = tmp_path / "agencies.yaml"
    registry.touch()
    monkeypatch.setenv("FLUX_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    monkeypatch.setenv("FLUX_POSTGRES_DSN", "postgresql://flux_ingest@127.0.0.1:5432/flux")
    monkeypatch.setenv("FLUX_AGENCIES_FILE", str(registry))


def _faults(settings_class: type[ServiceSettings]) -> list[str]:
    with pytest.raises(FluxError) as caught:
        load(settings_class)
    assert caught.value.code == Code.SETTINGS_INVALID
    return caught.value.message.splitlines()


@pytest.mark.usefixtures("complete")
def test_every_section_is_read_from_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's settings come from the environment, defaults included."""
    monkeypatch.setenv("FLUX_TOPIC_PREFIX", "t1-")
    monkeypatch.setenv("FLUX_OPS_PORT", "0")
    settings = load(WholeSettings)

    assert settings.kafka.topic("flux-internal.work.v1") == "t1-flux-internal.work.v1"
    assert (settings.ops.port, settings.ops.host) == (0, "127.0.0.1")
    assert settings.postgres.pool_max == 8


@pytest.mark.usefixtures("complete")
def test_settings_are_frozen() -> None:
    """Nothing changes a setting after the start."""
    settings = load(WholeSettings)

    with pytest.raises(ValueError, match="frozen"):
        settings.ops.port = 1  # type: ignore[misc]


def test_all_faults_are_said_at_once_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fault of every section is one line that names the variable."""
    monkeypatch.setenv("FLUX_OPS_PORT", "many")
    monkeypatch.setenv("FLUX_KAFKA_BOOTSTRAP", "broker")
    faults = _faults(WholeSettings)

    named = [line.split(" ", 1)[0] for line in faults]
    assert named == ["FLUX_OPS_PORT", "FLUX_KAFKA_BOOTSTRAP", "FLUX_POSTGRES_DSN", "FLUX_AGENCIES_FILE"]
    assert "is not set" in faults[2]
    assert "for example FLUX_POSTGRES_DSN=postgresql://" in faults[2]


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://u:canary-word@h/db", "FLUX_POSTGRES_PASSWORD_FILE"),
        ("postgresql://u@h/db?password=canary-word", "FLUX_POSTGRES_PASSWORD_FILE"),
        ("postgresql://u@/db?host=/run/postgresql", "Unix sockets are refused"),
        ("postgresql:///db", "Unix sockets are refused"),
        ("postgresql://u@%2frun%2fpostgresql/db", "Unix sockets are refused"),
        ("mysql://u@h/db", "the form is"),
    ],
)
def test_a_dsn_has_a_host_and_no_password(monkeypatch: pytest.MonkeyPatch, dsn: str, said: str) -> None:
    """PostgreSQL is reached over TCP with a password from a file, and a refusal repeats no secret."""
    monkeypatch.setenv("FLUX_POSTGRES_DSN", dsn)
    (fault,) = _faults(WholeSettings)

    assert said in fault
    assert "canary-word" not in fault


@pytest.mark.usefixtures("complete")
def test_sasl_without_a_password_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol with SASL needs a principal and the file of its password."""
    monkeypatch.setenv("FLUX_KAFKA_PROTOCOL", "SASL_SSL")
    (fault,) = _faults(WholeSettings)

    assert "FLUX_KAFKA_SASL_USERNAME and FLUX_KAFKA_SASL_PASSWORD_FILE" in fault


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize("content", [None, ""])
def test_a_secret_that_cannot_be_read_is_a_fault_of_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """A missing or empty secret is found at the start, not at the first connection."""
    secret = tmp_path / "password"
    if content is not None:
        secret.write_text(content)
    monkeypatch.setenv("FLUX_POSTGRES_PASSWORD_FILE", str(secret))
    (fault,) = _faults(WholeSettings)

    assert fault.startswith("FLUX_POSTGRES_PASSWORD_FILE is wrong")


@pytest.mark.usefixtures("complete")
def test_secrets_reach_the_clients_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both Kafka clients and asyncpg get the secret of its file; the settings' own text never holds it."""
    secret = tmp_path / "password"
    secret.write_text("canary-word\n")
    for name, value in {
        "FLUX_KAFKA_PROTOCOL": "SASL_SSL",
        "FLUX_KAFKA_SASL_USERNAME": "ingest",
        "FLUX_KAFKA_SASL_PASSWORD_FILE": str(secret),
        "FLUX_POSTGRES_PASSWORD_FILE": str(secret),
    }.items():
        monkeypatch.setenv(name, value)
    settings = load(WholeSettings)

    assert settings.kafka.aiokafka_options()["sasl_plain_password"] == "canary-word"
    assert settings.kafka.aiokafka_options()["ssl_context"].check_hostname is True
    assert settings.kafka.confluent_options()["sasl.password"] == "canary-word"
    assert settings.postgres.asyncpg_options("flux-ingest")["password"] == "canary-word"
    assert "canary-word" not in repr(settings) + explain(WholeSettings)


def test_explain_names_every_setting_once_with_its_meaning() -> None:
    """The table has a row for each setting, and each row says what the setting means."""
    found = list(describe(WholeSettings))
    count = sum(len(section.model_fields) for section in WholeSettings.sections().values())

    assert len({setting.env for setting in found}) == len(found) == count
    assert all(setting.env.startswith("FLUX_") and setting.description for setting in found)
    assert len(explain(WholeSettings).splitlines()) == count + 1


def test_a_field_that_is_no_section_is_refused() -> None:
    """A service's settings are sections only, so that each has a variable and an explanation."""

    class Loose(ServiceSettings):
        number: int

    with pytest.raises(TypeError, match=r"Loose\.number is not a Section"):
        load(Loose)


def test_a_section_can_be_made_in_code() -> None:
    """Tests and tools make a section without the environment, by the settings' names."""
    section = KafkaSettings(bootstrap="h:1", topic_prefix="p.")

    assert section.topic("x") == "p.x"
    assert OpsSettings.env_name("loop_stall_ms") == "FLUX_OPS_LOOP_STALL_MS"
