"""What is in each image's environment, held to what the service declares; and the programs in it, started from there.

An environment is made by the Dockerfile's own steps (flux_devkit.images). Then, with nothing of this checkout in reach:
every distribution is one that the lock names, no other service and nothing of the development kit is there, every module
of what ships can be imported, and `check-settings` and `serve --help` do what they say.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from flux_client.keys import ensure_key
from flux_devkit.finding import Finding
from flux_devkit.home import find_checkout
from flux_devkit.images import Image, build
from flux_devkit.installation import SERVICES, TREE_HEAD_KEY, Installation
from flux_devkit.servers import Servers

NOWHERE: Final = Servers("127.0.0.1:9092", "postgresql://postgres@127.0.0.1:5432/postgres")
BASE_MEGABYTES: Final = 46  # python:3.11-slim as a registry holds it
IMAGE_MEGABYTES_MAX: Final = 250
ABSENT: Final = ("flux_devkit", "flux_client", "pytest", "mypy", "hypothesis", "hatchling", "uv", "pip", "setuptools")
LOOK: Final = """
import importlib, importlib.util, json, pkgutil, sys
from importlib.metadata import distributions
ours, absent = sys.argv[1].split(","), sys.argv[2].split(",")
modules = [m.name for o in ours for m in pkgutil.walk_packages(importlib.import_module(o).__path__, o + ".")]
for name in modules:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps({
    "distributions": sorted(d.name.lower().replace("_", "-").replace(".", "-") for d in distributions()),
    "reachable": [name for name in absent if importlib.util.find_spec(name)],
    "modules": len(modules),
    "places": sorted({getattr(m, "__file__", None) or "" for m in list(sys.modules.values()) if m.__name__ in ours}),
}))
"""


def environments(folder: Path) -> Iterator[Finding]:
    """Yield the findings of all four services."""
    for service in SERVICES:
        image = build(service, folder / service, folder / "base")
        problems = faults(image, folder / "settings")
        yield Finding(
            f"environment of {service}", not problems, "; ".join(problems) or "as declared, starts", "no fault"
        )
        packed, unpacked = packed_megabytes(image), image.megabytes
        measured = f"{packed + BASE_MEGABYTES:.0f} MB in a registry, {unpacked:.0f} MB unpacked without its base"
        holds = packed + BASE_MEGABYTES <= IMAGE_MEGABYTES_MAX
        yield Finding(f"size of {service}", holds, measured, f"{IMAGE_MEGABYTES_MAX} MB in a registry")


def faults(image: Image, folder: Path) -> list[str]:
    """Return everything that is wrong with an environment; none if it is as it should be."""
    return [*undeclared(image), *_inconsistent(image), *_judging(image, folder), *_helping(image)]


def locked(service: str) -> set[str]:
    """Return the distributions that a service's lock names, on any platform."""
    lock = (find_checkout() / f"requirements/{service}.lock").read_text()
    return set(re.findall(r"^([a-z0-9-]+)==", lock, re.M))


def undeclared(image: Image) -> Iterator[str]:
    """Yield what is there and should not be, and what should be and cannot be imported."""
    ours = {"flux_common", f"flux_{image.service}"}
    others = {f"flux_{service}" for service in SERVICES} - ours
    done = image.run("-I", "-c", LOOK, ",".join(sorted(ours)), ",".join([*ABSENT, *sorted(others)]))
    if done.returncode:
        yield f"not every module can be imported: {done.stderr.strip().splitlines()[-1]}"
        return
    seen = json.loads(done.stdout)
    allowed = locked(image.service) | {name.replace("_", "-") for name in ours}
    yield from (f"{name} is not declared" for name in set(seen["distributions"]) - allowed)
    yield from (f"{name} can be imported" for name in seen["reachable"])
    yield from (
        f"{place} is not of the environment" for place in seen["places"] if not place.startswith(str(image.app))
    )


def _inconsistent(image: Image) -> Iterator[str]:
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run([str(uv), "pip", "check", "--python", str(image.python)], capture_output=True, text=True)
    if done.returncode:
        yield f"uv pip check: {done.stderr.strip()}"


def _judging(image: Image, folder: Path) -> Iterator[str]:
    """Try `check-settings` with settings that are good, and with one that is not."""
    good = settings(image.service, folder)
    module = ("-m", f"flux_{image.service}", "check-settings")
    fine, bad = image.run(*module, env=good), image.run(*module, env=good | {"FLUX_OPS_PORT": "none"})
    if fine.returncode or "\nAll settings are valid" not in fine.stdout:
        yield f"check-settings of good settings: exit {fine.returncode}, {fine.stderr.strip()}"
    if bad.returncode != 2 or not bad.stderr.startswith("FLUX_OPS_PORT "):
        yield f"check-settings of bad settings: exit {bad.returncode}, {bad.stderr.strip()}"


def _helping(image: Image) -> Iterator[str]:
    done = image.run("-m", f"flux_{image.service}", "serve", "--help")
    if done.returncode or "Run the service until SIGTERM" not in done.stdout:
        yield f"serve --help: exit {done.returncode}, {done.stderr.strip()}"


def settings(service: str, folder: Path) -> dict[str, str]:
    """Return good settings of a service, with the files that they name; nobody listens at their addresses."""
    installation = Installation(NOWHERE, folder / "keys", folder / "data", "flux", role_password="none")
    installation.registry()
    ensure_key(installation.keys, TREE_HEAD_KEY, "EdDSA")
    return installation.environment(service)


class _Count:
    """A file that only counts."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        """Count."""
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is kept."""


def packed_megabytes(image: Image) -> float:
    """Return how large the environment is as a layer in a registry: a tar that gzip has packed."""
    count: IO[bytes] = _Count()  # type: ignore[assignment]
    with (
        gzip.GzipFile(fileobj=count, mode="wb", compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        tar.add(image.app / ".venv", "app/.venv")
    return count.size / 1e6  # type: ignore[attr-defined,no-any-return]
