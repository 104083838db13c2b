"""`make up` brings the whole Flux, and the command line finds it through `.flux/dev.env` alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux_devkit import background
from flux_devkit.asking import texts
from flux_devkit.home import Home, find_checkout

AGENCY = "library-of-congress"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own that borrows the checkout's jars."""
    for name in [name for name in os.environ if name.startswith("FLUX_")]:
        monkeypatch.delenv(name)
    checkout = find_checkout()
    root = tmp_path / "flux-home"
    home = Home(root, checkout)
    for folder in (home.logs, home.data):
        folder.mkdir(parents=True)
    for jars in (checkout / ".flux").glob("kafka-*"):
        (root / jars.name).symlink_to(jars)
    monkeypatch.setenv("FLUX_HOME", str(root))
    monkeypatch.setenv("FLUX_STACK", "embedded")
    return home


def test_up_then_submit_then_down(home: Home) -> None:
    """One command up; a run submitted, followed and explained by flux-etl with no option but the agency; one down."""
    assert background.up(home)
    try:
        variables = home.read_dev_env()
        files = Path(variables["FLUX_FILES_DIR"])
        source = texts(files / "archives" / AGENCY / "letters", 4)
        request = {
            "request_id": "letters-1",
            "source": {"uri": f"{source.resolve().as_uri()}/"},
            "content_type": "text",
            "use_case": "research",
            "destination": {"uri": f"{(files / 'datasets' / AGENCY).resolve().as_uri()}/"},
        }
        (home.root / "run.json").write_text(json.dumps(request))
        etl = [sys.executable, "-m", "flux_client"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(home.root), "FLUX_DEV_ENV": str(home.dev_env)}
        asked = ["submit", "--agency", AGENCY, "-f", str(home.root / "run.json"), "--wait", "-o", "json"]
        submitted = subprocess.run([*etl, *asked], env=environment, capture_output=True, text=True, timeout=120)
        listed = subprocess.run(
            [*etl, "runs", "ls", "--agency", AGENCY, "-o", "json"], env=environment, capture_output=True, text=True
        )
    finally:
        was_up = background.down(home)

    assert submitted.returncode == 0, submitted.stderr
    assert '"state": "COMPLETED"' in listed.stdout or '"COMPLETED"' in listed.stdout
    assert was_up
