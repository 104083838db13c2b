"""The tools that judge a deployment and are not Flux's own: hadolint, the compose schema, Checkov, promtool.

They live in environments of their own below `.flux/tools`, each made from its lock when it is first needed and again when the
lock changes: `linters` is small, and the tests have it too; `tools` (Checkov) takes longer than a test may. Promtool is built
there from its Go module. A tool that cannot be had is a proof that falls short, and never one that is passed over. What
each tool may pass over is listed here, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flux_devkit.manifests import rendering

PROMTOOL: Final = "github.com/prometheus/prometheus/cmd/promtool@v0.316.0"
RULES_TESTS: Final = "deploy/observability/rules-tests/flux.yaml"
# Checkov's checks that are passed over, by what is rendered. In production none is.
_TAGS: Final = {
    "CKV_K8S_15": "a tag is exact here, and a laptop's or a test cluster's images need no registry at each start",
    "CKV_K8S_43": "digests are for production; its overlay has one for each image",
}
CHECKOV_SKIPS: Final[dict[str, dict[str, str]]] = {
    "base": {**_TAGS, "CKV_K8S_14": "the base names images; which, is said by an overlay"},
    "dev": _TAGS,
    "staging": _TAGS,
    "production": {},
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a tool said: whether it holds, and the figure."""

    holds: bool
    measured: str


def environment(repository: Path, name: str) -> Path:
    """Return the folder of the programs that a lock names, made if it is not there. Raises CalledProcessError."""
    lock = repository / f"requirements/{name}.lock"
    home = repository / ".flux/tools" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not (home / "complete").exists():
        uv = Path(sys.executable).parent / "uv"
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
        install: list[str | Path] = [
            uv,
            "pip",
            "sync",
            "--quiet",
            "--python",
            home / "bin/python",
            "--require-hashes",
            lock,
        ]
        subprocess.run(install, check=True)
        (home / "complete").touch()
    return home / "bin"


def promtool(repository: Path) -> Path:
    """Return promtool, built if it is not there: minutes, once. Raises FileNotFoundError where there is no Go."""
    home = repository / ".flux/tools" / f"promtool-{PROMTOOL.rpartition('@')[2]}"
    if not (home / "promtool").exists():
        go = shutil.which("go")
        if go is None:
            raise FileNotFoundError("promtool is built with Go (Debian: apt-get install golang)")
        subprocess.run([go, "install", PROMTOOL], env={**os.environ, "GOBIN": str(home.resolve())}, check=True)
    return home / "promtool"


def alerts(repository: Path) -> Verdict:
    """Run the unit tests of the alerts."""
    done = _run([promtool(repository), "test", "rules", repository / RULES_TESTS])
    cases = (repository / RULES_TESTS).read_text().count("\n- name: ")
    return Verdict(done.returncode == 0, f"exit {done.returncode}, {cases} histories{_complaint(done)}")


def dockerfile(repository: Path) -> Verdict:
    """Lint the Dockerfile; what it ignores is said in the file itself."""
    return hadolint(repository, repository / "Dockerfile")


def hadolint(repository: Path, file: Path) -> Verdict:
    """Lint a Dockerfile."""
    done = _run([environment(repository, "linters") / "hadolint", file])
    return Verdict(
        done.returncode == 0, f"exit {done.returncode}, {len(done.stdout.splitlines())} complaints{_complaint(done)}"
    )


def compose(repository: Path) -> Verdict:
    """Hold compose.yaml to the schema of the compose specification."""
    return compose_schema(repository, repository / "compose.yaml")


def compose_schema(repository: Path, file: Path) -> Verdict:
    """Hold a compose file to the schema, which comes with the tool."""
    tool = environment(repository, "linters") / "check-jsonschema"
    done = _run([tool, "--builtin-schema", "vendor.compose-spec", file])
    return Verdict(done.returncode == 0, f"exit {done.returncode}{_complaint(done)}")


def checkov(repository: Path, target: str, folder: Path) -> Verdict:
    """Let Checkov judge what the base or an overlay renders to."""
    rendered = folder / f"{target}.yaml"
    rendered.write_text(rendering.kustomize(rendering.targets(repository / "deploy/k8s")[target]))
    skips = CHECKOV_SKIPS[target]
    command = [
        environment(repository, "tools") / "checkov",
        "-f",
        rendered,
        "--framework",
        "kubernetes",
        "--compact",
        "-o",
        "json",
    ]
    done = _run([*command, *(["--skip-check", ",".join(skips)] if skips else [])])
    summary = _summary(done.stdout)
    holds = done.returncode == 0 and summary.get("passed", 0) > 0 and not summary.get("parsing_errors", 1)
    passed, failed = summary.get("passed", 0), summary.get("failed", "?")
    return Verdict(holds, f"{passed} passed, {failed} failed, {len(skips)} checks passed over{_complaint(done)}")


def _summary(output: str) -> dict[str, Any]:
    try:
        said = json.loads(output)
    except ValueError:
        return {}
    found: dict[str, Any] = (said[0] if isinstance(said, list) else said).get("summary", {})
    return found


def _run(command: list[Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last thing that a tool that failed has said."""
    said = (done.stderr or done.stdout).strip().splitlines()
    return f": {said[-1][:200]}" if done.returncode and said else ""
