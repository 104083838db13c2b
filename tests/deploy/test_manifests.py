"""The manifests of deploy/k8s, without a cluster: what is rendered, what it is held to, what is generated.

The checks themselves are in flux_devkit.manifests; that each finds what it is for is shown in test_seeded_mistakes.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flux_common.contracts.catalogue import GROUPS
from flux_common.settings import load
from flux_devkit.manifests import alerts, generated, rendering, schemas, tools, wiring
from flux_devkit.manifests.agreement import replicas
from flux_devkit.manifests.checks import checks_for
from flux_devkit.manifests.documents import Document, named, of_kind, parse, pods
from flux_devkit.manifests.expected_edges import expected
from flux_devkit.manifests.network import edges
from flux_devkit.manifests.programs import JOBS, SERVICES, Program, programs

REPOSITORY = Path(__file__).resolve().parents[2]
TARGETS = list(rendering.targets(REPOSITORY / "deploy/k8s"))
CASES = [(target, check) for target in TARGETS for check in checks_for(target, REPOSITORY, None)]
WARNED = re.compile(r"warning: FLUX_TELEMETRY_OTLP_ENDPOINT is http.*\n")  # to the collector, inside the cluster
Rendered = Callable[[str], list[Document]]


@pytest.mark.parametrize(("target", "check"), CASES)
def test_nothing_is_wrong(rendered: Rendered, target: str, check: str) -> None:
    """No check finds anything, in the base and in every overlay: each of those that are for it."""
    judge = checks_for(target, REPOSITORY, None)[check]

    assert [str(finding) for finding in judge(rendered(target))] == []


@pytest.mark.parametrize("target", TARGETS)
def test_operators_take_their_resources(rendered: Rendered, target: str, corpora: Path) -> None:
    """Every resource of an operator keeps the schema of its definition."""
    assert [str(each) for each in schemas.operator_findings(rendered(target), corpora / "crd-schemas")] == []


def test_the_schemas_of_operators_are_used_as_they_are_meant(corpora: Path) -> None:
    """The corpus's own examples are judged as it says: 31 are right and 33 are not."""
    folder = corpora / "crd-schemas"
    cases = json.loads((folder / "examples/cases.json").read_text())
    wrong = [
        case["file"]
        for case in cases
        if bool(list(schemas.operator_findings(parse((folder / case["file"]).read_text()), folder))) == case["valid"]
    ]

    assert len(cases) == 64
    assert wrong == []


def test_the_base_needs_no_operator(rendered: Rendered) -> None:
    """Everything in it is Kubernetes' own."""
    assert [name for name in rendered("base") if schemas.is_operators(name)] == []


def test_the_base_has_what_every_installation_has(rendered: Rendered) -> None:
    """Per service a Deployment, an account, a budget and a policy; two jobs; nothing runs outside of the namespace."""
    documents = rendered("base")
    names = {kind: {each["metadata"]["name"] for each in of_kind(documents, kind)} for kind in ("Deployment", "Job")}

    assert names == {"Deployment": set(SERVICES), "Job": {"migrate", "topics"}}
    for kind in ("ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"):
        assert {each["metadata"]["name"] for each in of_kind(documents, kind)} >= set(SERVICES)
    assert {each["metadata"].get("namespace", "flux-etl") for each in documents} == {"flux-etl"}


@pytest.mark.parametrize("target", TARGETS)
def test_who_decodes_strangers_files_cannot_reach_the_database(rendered: Rendered, target: str) -> None:
    """Nor can a bystander in the namespace, or anybody elsewhere, reach anything of ours."""
    found = edges(rendered(target))

    assert ("transform", "postgres", "5432/TCP") not in found
    assert {(one, other) for one, other, _ in found if one in ("bystander", "stranger")} <= {("bystander", "dns")}
    assert found == expected(rendered(target))


def test_what_is_generated_is_current() -> None:
    """Topics, logins and alerts are what the code and the registry say now."""
    stale = [path.name for path, text in generated.files(REPOSITORY).items() if path.read_text() != text]

    assert stale == [], "call: .venv/bin/python -m flux_devkit.manifests generate"


def test_every_overlay_and_component_renders(tmp_path: Path) -> None:
    """Each component works with the base alone, too."""
    written = rendering.render_all(REPOSITORY / "deploy/k8s", tmp_path)

    assert len(written) == len(TARGETS) + len(rendering.COMPONENTS)
    assert {path.name for path in (REPOSITORY / "deploy/k8s/components").iterdir()} == set(rendering.COMPONENTS)
    assert {path.name for path in (REPOSITORY / "deploy/k8s/overlays").iterdir()} == set(rendering.OVERLAYS)
    assert all(parse(path.read_text()) for path in written)


def test_every_group_is_scaled_by_its_lag(rendered: Rendered) -> None:
    """KEDA looks at each consumer group of the code, and at no other."""
    scaled = of_kind(rendered("production"), "ScaledObject")
    looked_at = [trigger["metadata"]["consumerGroup"] for each in scaled for trigger in each["spec"]["triggers"]]

    assert sorted(looked_at) == sorted(group.name for group in GROUPS)
    assert all(replicas(rendered("production"), service)[0] >= 2 for service in SERVICES)


def test_an_agencys_quota_is_the_one_that_its_entry_has(rendered: Rendered) -> None:
    """What a login may have is judged by the registry in the manifests, not by the usual quota."""
    documents = rendered("production")
    data = named(documents, "ConfigMap", "flux-agencies")["data"]
    data["agencies.yaml"] = data["agencies.yaml"].replace(
        "name: NASA\n", "name: NASA\n    quota: {producer_byte_rate: 4194304}\n"
    )
    judge = checks_for("production", REPOSITORY, None)["brokers"]
    stale = [str(finding) for finding in judge(documents)]
    named(documents, "KafkaUser", "flux.nasa")["spec"]["quotas"]["producerByteRate"] = 4194304

    assert stale == ["KafkaUser/flux.nasa: its quota is not the registry's"]
    assert list(judge(documents)) == []


def test_production_needs_no_secret_by_hand(rendered: Rendered) -> None:
    """Operators make all of them; in dev a person makes exactly those that deploy/k8s/README.md makes."""
    readme = (REPOSITORY / "deploy/k8s/README.md").read_text()

    assert wiring.secrets_by_hand(rendered("production")) == set()
    assert all(f"secret generic {name} " in readme for name in wiring.secrets_by_hand(rendered("dev")))


def test_only_audit_has_the_signing_key(rendered: Rendered) -> None:
    """And each service has the password of its own login alone."""
    secrets = {
        pod.where.partition("/")[2]: {name for kind, name in wiring.referred(pod) if kind == "Secret"}
        for pod in pods(rendered("production"))
    }
    own = {name: {f"flux-{name}", f"flux-postgres-{name}"} for name in ("ingest", "checkpoint", "audit")}
    shared = {"flux-cluster-ca-cert", "flux-postgres-ca"}

    assert {name: secrets[name] - shared for name in SERVICES} == {
        **own,
        "audit": own["audit"] | {"flux-audit-tree-heads"},
        "transform": {"flux-transform"},
    }


def _on_this_machine(program: Program, documents: list[Document], folder: Path) -> dict[str, str]:
    """Return a program's environment with its mounts under `folder`, each file there."""
    places = {mount["mountPath"]: mount["name"] for mount in program.container["volumeMounts"]}
    for place, name in places.items():
        volume = next(each for each in program.pod.spec["volumes"] if each["name"] == name)
        for path, text in _files(volume, documents).items():
            target = folder / place.lstrip("/") / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(volume.get("secret", volume.get("projected", {})).get("defaultMode", 0o644))
    inside = re.compile("|".join(sorted(map(re.escape, places), key=len, reverse=True)))
    return {key: inside.sub(lambda found: f"{folder}{found[0]}", value) for key, value in program.environment.items()}


def _files(volume: dict[str, Any], documents: list[Document]) -> dict[str, str]:
    if "configMap" in volume:
        data: dict[str, str] = named(documents, "ConfigMap", volume["configMap"]["name"])["data"]
        return data
    items = list(volume.get("secret", {}).get("items", []))
    for source in volume.get("projected", {}).get("sources", []):
        items += source["secret"].get("items", [])
    return {item["path"]: "not-a-secret" for item in items}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_finds_no_fault_in_its_settings(rendered: Rendered, service: str, tmp_path: Path) -> None:
    """`check-settings` itself, in production's environment, with production's files where they are mounted."""
    documents = rendered("production")
    program = next(each for each in programs(documents) if each.name == service)
    environment = _on_this_machine(program, documents, tmp_path) | {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", f"flux_{service}", "check-settings"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert (done.returncode, WARNED.sub("", done.stderr)) == (0, "")
    assert "All settings are valid, for production" in done.stdout


@pytest.mark.parametrize("job", JOBS)
def test_a_job_finds_no_fault_in_its_settings(
    rendered: Rendered, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of each job load."""
    documents = rendered("production")
    program = next(each for each in programs(documents) if each.name == job)
    for variable in [each for each in os.environ if each.startswith("FLUX_")]:
        monkeypatch.delenv(variable)
    for key, value in _on_this_machine(program, documents, tmp_path).items():
        monkeypatch.setenv(key, value)

    assert load(JOBS[job]) is not None


def test_every_alert_has_a_history_in_which_it_fires_and_one_in_which_it_stays_quiet(rendered: Rendered) -> None:
    """`make prove-deployment` runs them with promtool."""
    histories = yaml.safe_load((REPOSITORY / tools.RULES_TESTS).read_text())["tests"]
    fires = {case["name"].split()[0]: bool(case["alert_rule_test"][0]["exp_alerts"]) for case in histories}
    told = {(case["name"], bool(case["alert_rule_test"][0]["exp_alerts"])) for case in histories}
    wanted = {rule["alert"] for _, rule in alerts.alerts(rendered("production"))}

    assert fires.keys() == wanted
    assert told == {(f"{name} fires", True) for name in wanted} | {(f"{name} stays quiet", False) for name in wanted}


def test_what_a_tool_passes_over_has_a_reason() -> None:
    """And in production nothing is passed over."""
    assert tools.CHECKOV_SKIPS.keys() == set(TARGETS)
    assert all(len(reason) > 20 for skips in tools.CHECKOV_SKIPS.values() for reason in skips.values())
    assert tools.CHECKOV_SKIPS["production"] == {}
