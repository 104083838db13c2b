"""An agency more: what deploy/k8s/README.md says is enough, and the manifests agree with the code again."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_client.cli.app import app
from flux_client.keys import ensure_key, jwks_path
from flux_common.contracts.catalogue import TOPICS
from flux_devkit.manifests import generated, rendering, wiring
from flux_devkit.manifests.checks import checks_for
from flux_devkit.manifests.documents import Document, named, of_kind, parse, pods

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "deploy/k8s/README.md").read_text()


def commands(heading: str) -> list[str]:
    """Return the commands of a section of the README, in order."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line]


WALKTHROUGH = commands("An agency more")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `deploy` of somebody who did the README's run: their own registry and keys are in place."""
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    monkeypatch.chdir(tmp_path)
    prepare = [sys.executable, REPOSITORY / "deploy/compose/prepare.py", "--home", ".flux/k8s"]
    subprocess.run(prepare, check=True, capture_output=True)
    for command in [each for each in commands("A run on a laptop") if each.startswith("cp ")]:
        subprocess.run(command, shell=True, check=True)
    generated.generate(tmp_path)
    return tmp_path


def add(checkout: Path) -> list[Path]:
    """Do what the README's `make agency` does, and return what `generate` changed."""
    ensure_key(checkout / "keys", "esa", "ES256")
    shutil.copy(jwks_path(checkout / "keys", "esa"), checkout / "deploy/k8s/registry/esa.jwks.json")
    (command,) = [shlex.split(each) for each in WALKTHROUGH if each.startswith("make ")]
    done = subprocess.run(["make", "-n", *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (said,) = [line for line in done.stdout.splitlines() if " && " in line]
    added = CliRunner().invoke(app, shlex.split(said.partition(" && ")[0])[1:])
    assert added.exit_code == 0, added.output
    return generated.generate(checkout)


def applied(checkout: Path) -> list[Document]:
    """Return what the last `kubectl apply -k` of the walkthrough applies."""
    folder = [shlex.split(each)[-1] for each in WALKTHROUGH if " apply -k " in each][-1]
    return parse(rendering.kustomize(checkout / folder))


def test_an_agency_is_added_by_its_entry_and_what_follows_from_it(checkout: Path) -> None:
    """Registry, key file, topics, login, quota and the services' grants; nothing else changes, and no check complains."""
    changed = add(checkout)
    documents = rendering.documents(checkout / "deploy/k8s", "production")
    topics = {each["metadata"]["name"] for each in of_kind(documents, "KafkaTopic")}
    reads = {
        acl["resource"]["name"] for acl in named(documents, "KafkaUser", "flux-ingest")["spec"]["authorization"]["acls"]
    }
    checks = checks_for("production", REPOSITORY, None)

    assert {path.name for path in changed} == {"topics.yaml", "users.yaml", "kustomization.yaml"}
    assert topics >= {spec.of("esa") for spec in TOPICS if spec.per_agency}
    assert named(documents, "KafkaUser", "flux.esa")["spec"]["quotas"]["producerByteRate"] > 0
    assert "flux.esa.run.requests.v1" in reads
    assert [str(finding) for judge in checks.values() for finding in judge(documents)] == []


def test_what_is_applied_with_it_is_the_installations_own_registry(checkout: Path) -> None:
    """`make agency` edits the registry that is applied: it has the new key, and the keys that were there before."""
    own = {path.name: path.read_text() for path in (checkout / ".flux/k8s/registry").glob("*.jwks.json")}
    add(checkout)
    documents = applied(checkout)
    data = named(documents, "ConfigMap", "flux-agencies")["data"]

    assert list(checks_for("dev", REPOSITORY, None)["brokers"](documents)) == []
    assert {name: data.get(name) for name in own} == own
    assert data.keys() - own.keys() == {"agencies.yaml", "esa.jwks.json"}


def test_every_job_that_reads_the_registry_runs_again() -> None:
    """A Job that is complete does nothing when it is applied: it is deleted before, and waited for afterwards."""
    acts = re.findall(r"^make|(?<= )(?:delete job|apply -k|wait)(?= )", "\n".join(WALKTHROUGH), re.M)
    deleted = {name for each in WALKTHROUGH if " delete job " in each for name in shlex.split(each)[5:]}
    waited = {name for each in WALKTHROUGH if " wait " in each for name in re.findall(r"job/([a-z]+)", each)}
    readers = {
        pod.where.partition("/")[2]
        for pod in pods(applied(REPOSITORY))
        if pod.where.startswith("Job/") and ("ConfigMap", "flux-agencies") in wiring.referred(pod)
    }

    assert deleted == waited == readers == {"roles", "topics"}
    assert acts == ["make", "delete job", "apply -k", "wait"]
