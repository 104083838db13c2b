"""Rendering with kustomize, as `kubectl kustomize` has it. The kubectl is the one of the development environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from flux_devkit.manifests.documents import Document, parse

OVERLAYS: Final = ("dev", "staging", "production")
COMPONENTS: Final = ("keda", "strimzi", "cnpg", "external-secrets", "prometheus-operator", "grafana", "otel-collector")


def kubectl() -> Path:
    """Return the pinned kubectl. Raises FileNotFoundError with what to do."""
    path = Path(sys.executable).parent / "kubectl"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; call: make setup")
    return path


def kustomize(folder: Path) -> str:
    """Return what a kustomization renders to. Raises ValueError with kustomize's own words."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{folder} does not render: {done.stderr.strip()}")
    return done.stdout


def targets(k8s: Path) -> dict[str, Path]:
    """Return everything that renders, by name: the base, and each overlay."""
    return {"base": k8s / "base", **{name: k8s / "overlays" / name for name in OVERLAYS}}


def documents(k8s: Path, target: str) -> list[Document]:
    """Return the documents of the base or of an overlay."""
    return parse(kustomize(targets(k8s)[target]))


def render_all(k8s: Path, out: Path) -> list[Path]:
    """Write the base, every overlay, and the base with each component alone; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, folder in targets(k8s).items():
        written.append(_write(out / f"{name}.yaml", kustomize(folder)))
    for name in COMPONENTS:
        written.append(_write(out / f"base-with-{name}.yaml", kustomize(_with_component(k8s, out, name))))
    return written


def _with_component(k8s: Path, out: Path, name: str) -> Path:
    """Return a kustomization of the base and one component; kustomize wants relative paths."""
    folder = out / "kustomizations" / name
    folder.mkdir(parents=True, exist_ok=True)
    to_k8s = Path(
        *[".."] * len(folder.resolve().relative_to(_shared_parent(folder, k8s)).parts)
    ) / k8s.resolve().relative_to(_shared_parent(folder, k8s))
    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization"]
    lines += [f"resources: [{to_k8s}/base]", f"components: [{to_k8s}/components/{name}]", ""]
    _write(folder / "kustomization.yaml", "\n".join(lines))
    return folder


def _shared_parent(one: Path, other: Path) -> Path:
    """Return the deepest folder that holds both."""
    parents = [one.resolve(), *one.resolve().parents]
    return next(parent for parent in parents if other.resolve().is_relative_to(parent))


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
