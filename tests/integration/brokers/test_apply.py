"""`flux-etl agencies apply` on a real broker: from nothing to everything, and then nothing more to do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flux_client.cli.app import run
from flux_client.cli.exits import Exit
from flux_client.development import DevelopmentAgency, write_development_registry
from flux_common.contracts.access import AGENCY_QUOTA, SERVICE_QUOTA, Quota
from flux_common.kafka.logins import Difference, Rule, apply
from flux_common.kafka.raw_admin import describe_quotas, limits_of
from flux_common.kernel.errors import Unavailable
from flux_common.runtime.waiting import kafka_answers
from flux_common.settings import KafkaSettings
from flux_devkit.secured import SecuredKafka

PREFIX = "applied."
OWN = Quota(producer_byte_rate=500_000, consumer_byte_rate=600_000, request_percentage=7)
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Return a registry of two agencies that nobody else uses here; one has a quota of its own."""
    agencies = [DevelopmentAgency("jaxa", "JAXA"), DevelopmentAgency("isro", "ISRO")]
    path = write_development_registry(tmp_path / "keys", agencies)
    limits = "".join(f"    {name}: {int(value)}\n" for name, value in limits_of(OWN).items())
    path.write_text(f"{path.read_text()}  quota:\n{limits}")
    return path


@pytest.fixture
def settings(secured_kafka: SecuredKafka, registry: Path, monkeypatch: pytest.MonkeyPatch) -> KafkaSettings:
    """Return the administrator's settings, which the command finds in its environment."""
    settings = secured_kafka.settings(topic_prefix=PREFIX)
    variables = secured_kafka.environment() | {"FLUX_TOPIC_PREFIX": PREFIX, "FLUX_AGENCIES_FILE": str(registry)}
    for name, value in (variables | {"FLUX_DEV_ENV": ""}).items():
        monkeypatch.setenv(name, value)
    return settings


def changes(capsys: Captured) -> list[dict[str, Any]]:
    """Return what was written to standard output, without logins that have no password yet."""
    return [row for row in json.loads(capsys.readouterr().out) if row["change"] != "none"]


def agencies_apply(*more: str) -> int:
    """Run the command."""
    return run(["agencies", "apply", "--development", "-o", "json", *more])


async def quotas(settings: KafkaSettings, wanted: dict[str, Quota]) -> bool:
    """Tell whether the broker has these quotas."""
    held = await describe_quotas(settings)
    return all(held.get(login) == limits_of(quota) for login, quota in wanted.items())


def test_applying_twice_is_applying_once(settings: KafkaSettings, until: Any, capsys: Captured) -> None:
    """A dry run lists everything and changes nothing; then it is done; then there is nothing to do. Quotas are there."""
    dry, listed = agencies_apply("--dry-run"), changes(capsys)
    first, done = agencies_apply(), changes(capsys)
    wanted = {"flux.jaxa": AGENCY_QUOTA, "flux.isro": OWN, "flux-ingest": SERVICE_QUOTA}
    asyncio.run(until(lambda: quotas(settings, wanted)))
    second, again = agencies_apply("--dry-run"), changes(capsys)

    assert (dry, first, second) == (Exit.FAULTS, Exit.OK, Exit.OK)
    assert listed == done
    assert {(row["kind"], row["change"]) for row in done} == {("topic", "create"), ("acl", "add"), ("quota", "set")}
    assert again == []


def test_what_the_code_does_not_know_is_told_and_removed_only_when_asked(
    settings: KafkaSettings, until: Any, capsys: Captured
) -> None:
    """Nobody's grants vanish by surprise, and those of other logins are not even looked at."""
    strange = Rule("flux.jaxa", "TOPIC", "PREFIXED", f"{PREFIX}flux.", "ALL")
    others = Rule("somebody", "TOPIC", "PREFIXED", f"{PREFIX}flux.", "READ")
    agencies_apply()
    asyncio.run(apply(settings, Difference([strange, others], [], {}, [])))
    capsys.readouterr()

    async def told() -> bool:
        await asyncio.to_thread(agencies_apply, "--dry-run")
        return [(row["login"], row["change"]) for row in changes(capsys)] == [("flux.jaxa", "unknown")]

    async def clean() -> bool:
        return await asyncio.to_thread(agencies_apply, "--dry-run") == Exit.OK

    asyncio.run(until(told))
    assert agencies_apply() == Exit.FAULTS
    assert "--prune removes them" in capsys.readouterr().err
    assert agencies_apply("--prune") == Exit.OK
    asyncio.run(until(clean))


def test_a_password_is_set_rotated_and_never_printed(
    settings: KafkaSettings, secured_kafka: SecuredKafka, tmp_path: Path, until: Any, capsys: Captured
) -> None:
    """The new one works and the old one does not; a file of no login is refused before anything is done."""
    folder = tmp_path / "passwords"
    folder.mkdir()
    file = folder / "flux.jaxa"
    logs_in = kafka_answers(
        secured_kafka.settings().model_copy(update={"sasl_username": "flux.jaxa", "sasl_password_file": file})
    )

    async def works() -> bool:
        try:
            await logs_in()
        except Unavailable:
            return False
        return True

    async def refused() -> bool:
        return not await works()

    for password in ("first-password", "second-password"):
        file.write_text(password)
        assert agencies_apply("--passwords", str(folder)) == Exit.OK
        said = capsys.readouterr()
        assert password not in said.out + said.err
        asyncio.run(until(works))
    file.write_text("first-password")
    asyncio.run(until(refused))
    (folder / "flux.jaax").write_text("x")
    assert agencies_apply("--passwords", str(folder)) == Exit.USAGE
    assert "flux.jaax" in capsys.readouterr().err


def test_whoever_is_no_administrator_is_told_so(
    settings: KafkaSettings, secured_kafka: SecuredKafka, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """With the next step, and before anything was changed."""
    secured_kafka.make_logins_now(["flux-observer"])
    for name, value in secured_kafka.environment("flux-observer").items():
        monkeypatch.setenv(name, value)

    assert agencies_apply() == Exit.REFUSED
    assert "administrator" in capsys.readouterr().err
