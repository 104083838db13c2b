"""The environments of the images, made without a Docker engine: the Dockerfile's own steps, read and carried out in a folder.

Theory. What a service has in its image is `/app/.venv`, and that is made by the COPY and RUN steps of stage `build`. They
are read from the Dockerfile, so a step that is changed there is changed here, and carried out in order: `/build` and
`/app` are folders, and a fresh environment of this Python stands in for the base image. ENV and ARG hold as Docker has
them, but for the two that forbid caches: packages may come from this machine's, and their hashes are checked all the same.

Not carried out, and so not proven here: the base image, layers and their sizes, the user, the signal of a stop.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_devkit.errors import DevkitError
from flux_devkit.home import find_checkout

CACHES: Final = frozenset({"UV_NO_CACHE", "PIP_NO_CACHE_DIR"})
FOREIGN: Final = re.compile(r"FLUX_|PYTHON|VIRTUAL_ENV")
STEP_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined, and the stage that it is in."""

    stage: str
    word: str
    rest: str


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions of a Dockerfile in order."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    stage = ""
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.partition(" AS ")[2]
        yield Instruction(stage, word, rest)


@dataclass(frozen=True, slots=True)
class Image:
    """The environment of one service's image, as the Dockerfile makes it."""

    service: str
    app: Path
    env: Mapping[str, str]

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.app / ".venv/bin/python"

    @property
    def megabytes(self) -> float:
        """What the environment holds, in millions of bytes."""
        files = (path for path in (self.app / ".venv").rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files) / 1e6

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `python *arguments` in `/app` with the image's variables and `env`, and nothing of this checkout."""
        variables = {**self.env, **(env or {})}
        return subprocess.run(
            [str(self.python), *arguments], cwd=self.app, env=variables, capture_output=True, text=True, timeout=60
        )


def build(service: str, folder: Path, base: Path | None = None) -> Image:
    """Carry out the Dockerfile for `service` in `folder`. `base` stands in for the base image; builds may share one.

    Raises:
        DevkitError: a step failed; the message has its last lines.
    """
    builder = Builder(service, folder, base or folder / "base")
    for each in instructions((find_checkout() / "Dockerfile").read_text()):
        if each.stage == "build":
            builder.carry_out(each)
    variables = {"PATH": os.environ["PATH"]}
    for each in instructions((find_checkout() / "Dockerfile").read_text()):
        if each.stage == "runtime" and each.word == "ENV":
            variables |= builder.assigned(each.rest, variables)
    return Image(service, builder.app, variables)


class Builder:
    """Carries out the steps of one stage."""

    def __init__(self, service: str, folder: Path, base: Path) -> None:
        self.app, self._build = folder / "app", folder / "build"
        for place in (self.app, self._build):
            place.mkdir(parents=True)
        if not base.exists():
            subprocess.run([sys.executable, "-m", "venv", str(base)], check=True, timeout=STEP_SECONDS)
        # As the Makefile has it: this machine's own certificates, where something between it and a registry has some.
        kept = {"UV_SYSTEM_CERTS": "true"} | {
            name: value for name, value in os.environ.items() if not FOREIGN.match(name)
        }
        self._variables = kept | {"PATH": f"{base / 'bin'}:{kept['PATH']}", "SERVICE": service}

    def carry_out(self, each: Instruction) -> None:
        """Carry out one instruction."""
        if each.word == "ENV":
            self._variables |= {k: v for k, v in self.assigned(each.rest, self._variables).items() if k not in CACHES}
        elif each.word == "COPY":
            self._copy(*(_filled(word, self._variables) for word in each.rest.split()))
        elif each.word == "RUN":
            self._run(each.rest)
        elif each.word not in ("FROM", "ARG", "WORKDIR"):
            raise DevkitError(f"{each.word} in the Dockerfile is not known here")

    def assigned(self, rest: str, known: Mapping[str, str]) -> dict[str, str]:
        """Return what an ENV assigns."""
        pairs = (word.partition("=") for word in shlex.split(rest))
        return {name: self._placed(_filled(value, known)) for name, _, value in pairs}

    def _copy(self, source: str, target: str) -> None:
        origin, place = find_checkout() / source, self._build / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "tests", "build"))
        else:
            shutil.copy(origin, place)

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self._placed(command)],
            cwd=self._build, env=self._variables, capture_output=True, text=True, timeout=STEP_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise DevkitError(f"RUN {command}\nended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")

    def _placed(self, text: str) -> str:
        """Let `/app/…` be in our folder."""
        return re.sub(r"(?<![\w.])/app/", f"{self.app}/", text)


def _filled(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], text)
