"""The jars come whole or not at all, and what is missing is named with the command that installs it.

Stand-ins for Java and Maven on the PATH play the tools that are old, slow or broken: those cannot be had on demand.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flux_devkit import jars
from flux_devkit.errors import DevkitError, MissingTool
from flux_devkit.home import Home, locate


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, but for the shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def test_a_missing_java_is_named_with_the_command(tools: Path) -> None:
    """One line, no traceback of another error."""
    put(tools / "apt-get", "exit 0")
    with pytest.raises(MissingTool) as missing:
        jars.find_java()

    assert str(missing.value) == (
        "the embedded Kafka needs Java >= 17, and there is none; call: apt-get install -y openjdk-17-jre-headless maven"
    )
    assert missing.value.__cause__ is None


@pytest.mark.parametrize(("version", "seen"), [("1.8.0_402", "8"), ("11.0.22", "11")])
def test_an_old_java_is_named_with_its_version(tools: Path, version: str, seen: str) -> None:
    """Old ones say 1.8."""
    put(tools / "java", f"echo 'openjdk version \"{version}\" 2024-01-16' >&2")
    with pytest.raises(MissingTool, match=rf"needs Java >= 17, .*/java is {seen}; "):
        jars.find_java()


def test_a_missing_maven_is_named(tools: Path) -> None:
    """On a machine without a known package manager too."""
    with pytest.raises(MissingTool, match="no mvn on the PATH; install a JDK >= 17 and Maven"):
        jars.find_maven()


def test_mavens_words_are_in_the_error(home: Home, tools: Path, tmp_path: Path) -> None:
    """Not only in a log."""
    put(tools / "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(DevkitError, match=r"(?s)could not fetch Kafka.*Could not transfer artifact"):
        jars.download(home, tmp_path / "jars")


def test_a_maven_that_stalls_is_ended(home: Home, tools: Path, tmp_path: Path) -> None:
    """With what it said last, and what to do."""
    put(tools / "mvn", "echo Downloading from central; exec /bin/sleep 300")
    with pytest.raises(DevkitError, match=r"(?s)did not finish within 1 s.*call the same again.*Downloading from"):
        jars.download(home, tmp_path / "jars", timeout_seconds=1.0)


def test_an_interrupted_download_is_not_taken_for_a_finished_one(
    flux_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-filled folder of a killed process is deleted, and the whole one is made."""
    home = locate({"FLUX_HOME": str(tmp_path / "home")})
    installed = jars.install(flux_home)
    version = jars.kafka_version(home.pom)
    half = home.root / f"kafka-{version}.part-1" / "jars"
    half.mkdir(parents=True)
    (half / f"kafka_2.13-{version}.jar").write_text("half a jar")
    tools = tmp_path / "bin"
    tools.mkdir()
    put(tools / "mvn", f'for word in "$@"; do case $word in -DoutputDirectory=*) to=${{word#*=}};; esac; done\n'
        f'/bin/mkdir -p "$to" && /bin/cp {installed.folder}/jars/*.jar "$to"')  # fmt: skip
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    fresh = jars.install(home)

    assert {path.name for path in home.root.glob("kafka-*")} == {f"kafka-{version}"}
    assert (fresh.formatted / "meta.properties").is_file()
    assert {jar.name for jar in (fresh.folder / "jars").iterdir()} == {
        jar.name for jar in (installed.folder / "jars").iterdir()
    }


@pytest.mark.skipif(shutil.which("mvn") is None, reason="needs Maven")
def test_the_real_maven_says_what_it_cannot_find(home: Home, tmp_path: Path) -> None:
    """Offline, a version that does not exist: the real tool's real words."""
    checkout = tmp_path / "checkout"
    (checkout / "deploy/dev/kafka").mkdir(parents=True)
    (checkout / "deploy/dev/kafka/pom.xml").write_text(home.pom.read_text().replace("4.3.1", "0.0.0-none"))
    (checkout / "deploy/dev/kafka/.mvn").mkdir()
    (checkout / "deploy/dev/kafka/.mvn/maven.config").write_text("--offline\n")
    with pytest.raises(DevkitError, match=r"(?s)could not fetch Kafka.*0\.0\.0-none"):
        jars.download(Home(home.root, checkout), tmp_path / "jars")


def put(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
