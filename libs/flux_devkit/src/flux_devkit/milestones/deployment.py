"""The deployment: what its tests show, and what only tools of their own show: alerts, Checkov, hadolint, schemas."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from flux_devkit.finding import Finding, Item
from flux_devkit.home import find_checkout
from flux_devkit.manifests import rendering, tools
from flux_devkit.milestones import running
from flux_devkit.suites import passing


def rendered(folder: Path) -> Iterator[Finding]:
    """`make render`, into another folder."""
    written = rendering.render_all(find_checkout() / "deploy/k8s", folder / "rendered")
    wanted = 1 + len(rendering.OVERLAYS) + len(rendering.COMPONENTS)
    yield Finding("every overlay and component renders", len(written) == wanted, f"{len(written)} files", f"{wanted}")


def judged(name: str, bound: str, judge: Callable[[Path], tools.Verdict]) -> Item:
    """Return the item that one tool's verdict is; a tool that cannot be had falls short."""

    def item(_folder: Path) -> Iterator[Finding]:
        try:
            verdict = judge(find_checkout())
        except (OSError, subprocess.CalledProcessError) as problem:
            verdict = tools.Verdict(False, f"cannot be run: {problem}")
        yield Finding(name, verdict.holds, verdict.measured, bound)

    return item


def hardened(folder: Path) -> Iterator[Finding]:
    """Checkov on the base and every overlay."""
    for target in tools.CHECKOV_SKIPS:
        bound = "none failed" if tools.CHECKOV_SKIPS[target] else "none failed, none passed over"
        item = judged(f"Checkov, {target}", bound, lambda checkout, of=target: tools.checkov(checkout, of, folder))  # type: ignore[misc]
        yield from item(folder)


ITEMS: Final[dict[str, Item]] = {
    "render": rendered,
    "manifests": passing("every check on every overlay, the README, the numbers", "tests/deploy", all_run=True),
    "alerts": judged("each alert fires and stays quiet when it should", "exit 0", tools.alerts),
    "checkov": hardened,
    "dockerfile": judged("hadolint", "no complaint", tools.dockerfile),
    "compose": judged("compose.yaml keeps the schema of the compose specification", "exit 0", tools.compose),
    "images": passing("the image's steps, done without an engine", "tests/architecture/test_images.py"),
    **running.ITEMS,
}
