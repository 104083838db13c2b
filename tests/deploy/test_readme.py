"""deploy/k8s/README.md and docs/kubernetes.md: commands that can be run without a cluster are run, numbers are the code's.

Of a command that needs a cluster, or an engine for containers, what can be known is checked: every object that it names is in
the dev overlay, and every `flux-etl` command is one. A command of a kind that is not known here fails the test.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_client.cli.app import app
from flux_common.auth.registry_file import load_registry
from flux_common.contracts import catalogue
from flux_devkit.manifests import agreement, rendering
from flux_devkit.manifests.documents import Document, named, of_kind
from flux_devkit.manifests.programs import SERVICES, programs
from flux_transform.domain.limits import DEFAULT_LIMITS, GIB

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "deploy/k8s/README.md"
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.M | re.S)
    for line in block.splitlines()
    if line.strip()
]
KINDS = {"deployment": "Deployment", "job": "Job", "kafka": "Kafka", "cluster": "Cluster"}
MADE_BY_OPERATORS = {"service/flux-kafka-host-bootstrap", "service/flux-postgres-rw"}
Rendered = Callable[[str], list[Document]]


def words(command: str) -> list[str]:
    """Return the words of a command's first part, before any pipe."""
    return shlex.split(re.split(r" [|&] | &$", command)[0])


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's own first command makes."""
    home = tmp_path_factory.mktemp("k8s")
    command = next(each for each in COMMANDS if "prepare.py" in each)
    assert command == ".venv/bin/python deploy/compose/prepare.py --home .flux/k8s"
    script = REPOSITORY / "deploy/compose/prepare.py"
    subprocess.run([sys.executable, script, "--home", home / ".flux/k8s"], check=True, capture_output=True)
    return home


@pytest.mark.parametrize("command", [each for each in COMMANDS if " create " in each])
def test_what_can_be_run_dry_is_run_dry(command: str, prepared: Path) -> None:
    """Each `kubectl create` makes its object from the files that were prepared."""
    dry = [] if "--dry-run=client" in command else ["--dry-run=client", "-o", "yaml"]
    done = subprocess.run(
        [rendering.kubectl(), *words(command)[1:], *dry], cwd=prepared, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "namespace: flux-etl" in done.stdout


def test_the_registry_that_is_put_in_place_names_the_agencies_that_have_topics(prepared: Path) -> None:
    """And is a registry without a fault, whose files are copied over the example's before anything is applied."""
    copied = COMMANDS.index("cp .flux/k8s/registry/* deploy/k8s/registry/")
    registry = load_registry(prepared / ".flux/k8s/registry/agencies.yaml")

    assert copied < min(number for number, each in enumerate(COMMANDS) if " apply -k " in each)
    assert registry.agencies.keys() == load_registry(REPOSITORY / "deploy/k8s/registry/agencies.yaml").agencies.keys()
    assert all(agency.may_read("file:///archives/") for agency in registry.agencies.values())


@pytest.mark.parametrize("command", [each for each in COMMANDS if re.search(r"kustomize | -k ", each)])
def test_what_is_applied_renders(command: str) -> None:
    """Each kustomization that a command names is there."""
    assert rendering.kustomize(REPOSITORY / words(command)[-1])


def test_every_object_that_a_command_names_is_there(rendered: Rendered) -> None:
    """In the dev overlay, or made by an operator; and every file that is applied."""
    found = {
        f"{short}/{each['metadata']['name']}"
        for short, kind in KINDS.items()
        for each in of_kind(rendered("dev"), kind)
    }
    text = " ".join(COMMANDS)
    wanted = set(re.findall(r"\b(?:deployment|job|kafka|cluster|service)/[a-z-]+", text))
    users = {each["metadata"]["name"] for each in of_kind(rendered("dev"), "KafkaUser")}

    assert wanted - found == MADE_BY_OPERATORS
    assert set(re.findall(r"get secret (\S+)", text)) <= users
    assert all((REPOSITORY / path).is_file() for path in re.findall(r"apply -f (\S+\.yaml)", text))


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if "flux-etl" in each and "kubectl" not in each and "export" not in each]
)
def test_every_command_of_the_client_is_one(command: str) -> None:
    """With its options; asking for help runs nothing."""
    result = CliRunner().invoke(app, [*words(command)[1:], "--help"])

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make ")])
def test_every_target_is_commands_that_are_there(command: str) -> None:
    """What make would run is a command of the client with its options, and then a module of the kit."""
    done = subprocess.run(["make", "-n", *words(command)[1:]], cwd=REPOSITORY, capture_output=True, text=True)
    (said,) = [line for line in done.stdout.splitlines() if " && " in line]  # below `make test` it says more
    client, _, generate = said.partition(" && ")
    result = CliRunner().invoke(app, [*words(client)[1:], "--help"])

    assert (words(client)[0], result.exit_code) == (".venv/bin/flux-etl", 0)
    assert generate == ".venv/bin/python -m flux_devkit.manifests generate"


def test_an_archive_is_what_is_in_a_folder_and_not_the_folder(tmp_path: Path) -> None:
    """The volume's own folder is root's: `tar` would fail on its time and mode as the services' user."""
    (command,) = [each for each in COMMANDS if "tar -x" in each]
    packed = subprocess.run(command.partition(" | ")[0], shell=True, cwd=REPOSITORY, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        names = {Path(member.name) for member in archive}

    assert Path("kubernetes.md") in names
    assert not {Path(), Path("/")} & names


def test_topics_are_deleted_while_the_operator_that_lets_them_go_is_there() -> None:
    """A KafkaTopic has a finalizer; deleted together with Kafka, none is ever gone."""
    (topics,) = [number for number, each in enumerate(COMMANDS) if " delete kafkatopics --all" in each]
    everything = COMMANDS.index("kubectl delete -k deploy/k8s/overlays/dev")

    assert topics < everything
    assert "--wait=false" not in COMMANDS[topics]


def test_links_lead_to_files() -> None:
    """As in the documents of `docs`, whose links test_documents.py follows."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", README.read_text())

    assert links
    assert [link for link in links if "://" not in link and not (README.parent / link).exists()] == []


def test_no_command_is_of_a_kind_that_nobody_checks() -> None:
    """What stands here without a check is said: building images, waiting, tunnels, a copy, a delete."""
    verbs = "apply|create|kustomize|wait|rollout|exec|port-forward|get|logs|delete"
    others = r"for service in .* docker build|\.venv/bin/|\(cd \S+ && tar |cp |export |echo "
    known = rf"make |kubectl( -n flux-etl)? ({verbs}) |{others}"

    assert [each for each in COMMANDS if not re.match(known, each)] == []
    assert len(COMMANDS) > 25


def numbers(documents: list[Document]) -> dict[str, str]:
    """Return the numbers that docs/kubernetes.md has to say."""
    found = {
        "Kafka partitions: requests topic, of each agency": str(catalogue.REQUESTS.kafka_partitions),
        "processes at most: ingest, with three agencies": str(agreement.members_max("ingest", 3)),
        "memory: one decoder at most": f"{DEFAULT_LIMITS.address_space_bytes_max // GIB} GiB",
        "slice: longest time": f"{DEFAULT_LIMITS.task_wall_seconds_max} s",
    }
    for name in ("RUNS", "WORK", "PROGRESS", "AUDIT"):
        found[f"Kafka partitions: {name.lower()}"] = str(getattr(catalogue, name).kafka_partitions)
    for service in ("checkpoint", "transform", "audit"):
        found[f"processes at most: {service}"] = str(agreement.members_max(service, 3))
    for service in SERVICES:
        found[f"production: {service}"] = "{} to {}".format(*agreement.replicas(documents, service))
    return found | _lags(documents) | _of_programs(documents) | _of_the_registry()


def _lags(documents: list[Document]) -> dict[str, str]:
    return {
        f"lag a replica: {trigger['name'].replace('-', ', ')}": trigger["metadata"]["lagThreshold"]
        + (" items" if trigger["name"] == "transform-work" else " records")
        for scaled in of_kind(documents, "ScaledObject")
        for trigger in scaled["spec"]["triggers"]
    }


def _of_programs(documents: list[Document]) -> dict[str, str]:
    running = {program.name: program for program in programs(documents)}
    has, needs = agreement.connections(documents, named(documents, "Cluster", "flux-postgres")["spec"])
    graces = {
        name: f"{program.pod.spec['terminationGracePeriodSeconds']} s, {agreement.grace_needed_s(program):g} needed"
        for name, program in running.items()
        if name in SERVICES
    }
    assert graces["ingest"] == graces["checkpoint"] == graces["audit"]
    at_once = int(running["transform"].value("FLUX_WORK_ITEMS_AT_ONCE"))
    return {
        "places: items in workers' hands at most": str(at_once * agreement.replicas(documents, "transform")[1]),
        "items at once: a worker in production": str(at_once),
        "pool: connections of a process": running["ingest"].value("FLUX_POSTGRES_POOL_MAX"),
        "max_connections": str(has),
        "connections that may be taken": str(needs),
        "grace: ingest, checkpoint, audit": graces["ingest"],
        "grace: transform": graces["transform"],
    }


def _of_the_registry() -> dict[str, str]:
    agency = load_registry(REPOSITORY / "deploy/k8s/registry/agencies.yaml").agencies["nasa"]
    return {"window: items of a run": str(agency.run_window), "window: items of an agency": str(agency.agency_window)}


def test_the_numbers_are_the_codes(rendered: Rendered) -> None:
    """docs/kubernetes.md says what the code, the settings and the production overlay say, and nothing else."""
    text = (REPOSITORY / "docs/kubernetes.md").read_text()

    assert agreement.documented(text) == numbers(rendered("production"))
