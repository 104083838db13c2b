"""The broker's jars from Maven Central, fetched once, and what makes later boots fast.

Theory. `.flux/kafka-<version>/` exists only when it is complete: everything is made in a folder beside it, which is
renamed at the end, so an interrupted download is never taken for a finished one. Processes that come at the same
time wait for each other on a lock file. Two more things are made once, since each costs a second per boot:
- `formatted/`, the three small files of a formatted log folder (copied into each new broker's);
- `classes-<jvm>.jsa`, a shared class archive (AppCDS) from one training boot (kafka.py makes it; it is optional).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from flux_devkit import supervise
from flux_devkit.errors import DevkitError, MissingTool
from flux_devkit.home import Home, Say, quiet, wait_for_lock

JAVA_MINIMUM = 17
MAVEN_TIMEOUT_SECONDS = 900.0
CLUSTER_ID = "Zmx1eC1kZXZlbG9wbWVudA"  # any 16 bytes; every development broker is its own cluster


@dataclass(frozen=True)
class KafkaJars:
    """An installed broker: its folder and the Java that runs it."""

    folder: Path
    java: Path

    @property
    def class_path(self) -> str:
        """All jars, in a fixed order (a class archive is valid for one order only)."""
        return os.pathsep.join(str(jar) for jar in sorted((self.folder / "jars").glob("*.jar")))

    @property
    def formatted(self) -> Path:
        """A formatted, empty log folder."""
        return self.folder / "formatted"

    @property
    def class_archive(self) -> Path:
        """The shared class archive of this Java; may be absent."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", str(self.java.resolve())).strip("-")
        return self.folder / f"classes-{name}.jsa"


def install(home: Home, say: Say = quiet, hold: tuple[int, ...] = ()) -> KafkaJars:
    """The jars of the version that the POM names, downloaded if this is the first time.

    Raises MissingTool without Java or Maven, DevkitError if the download fails or takes too long.
    """
    java = find_java()
    version = kafka_version(home.pom)
    folder = home.root / f"kafka-{version}"
    lock = wait_for_lock(home.root / "kafka.lock")
    try:
        if not folder.exists():
            say(f"fetching Kafka {version} with Maven (once)")
            _install(home, folder, java, hold)
    finally:
        os.close(lock)
    return KafkaJars(folder.resolve(), java)  # a class archive knows the jars by their real paths


def kafka_version(pom: Path) -> str:
    """The Kafka version that the POM names."""
    text = ElementTree.parse(pom).findtext(".//{*}properties/{*}kafka.version")  # noqa: S314 the checkout's own file
    if not text:
        raise DevkitError(f"{pom} has no property kafka.version")
    return text


def find_java() -> Path:
    """The Java to run Kafka with: JAVA_HOME's, else PATH's. Raises MissingTool if it is absent or too old."""
    home = os.environ.get("JAVA_HOME")
    found = Path(home, "bin", "java") if home else Path(shutil.which("java") or "java")
    try:
        output = subprocess.run([str(found), "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        raise MissingTool(f"the embedded Kafka needs Java >= {JAVA_MINIMUM}, and there is none; {_advice()}") from None
    version = re.search(r'version "(?:1\.)?(\d+)', output)
    if version is None or int(version.group(1)) < JAVA_MINIMUM:
        seen = version.group(1) if version else "an unknown version"
        raise MissingTool(f"the embedded Kafka needs Java >= {JAVA_MINIMUM}, {found} is {seen}; {_advice()}")
    return found


def find_maven() -> Path:
    """The Maven to download with. Raises MissingTool if it is absent."""
    found = shutil.which("mvn")
    if found is None:
        raise MissingTool(f"the embedded Kafka is downloaded by Maven, and there is no mvn on the PATH; {_advice()}")
    return Path(found)


def _advice() -> str:
    commands = {
        "apt-get": "apt-get install -y openjdk-17-jre-headless maven",
        "dnf": "dnf install -y java-17-openjdk-headless maven",
        "apk": "apk add openjdk17-jre-headless maven",
        "brew": "brew install openjdk@17 maven",
    }
    for tool, command in commands.items():
        if shutil.which(tool):
            return f"call: {command}"
    return f"install a JDK >= {JAVA_MINIMUM} and Maven (or set FLUX_KAFKA_BOOTSTRAP to a running Kafka)"


def _install(home: Home, folder: Path, java: Path, hold: tuple[int, ...]) -> None:
    for leftover in home.root.glob(f"{folder.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    download(home, part / "jars", hold=hold)
    format_logs(KafkaJars(part, java), part / "formatted", part / "format.log", hold=hold)
    part.rename(folder)


def download(
    home: Home, jars: Path, timeout_seconds: float = MAVEN_TIMEOUT_SECONDS, hold: tuple[int, ...] = ()
) -> None:
    """Let Maven copy the POM's dependencies into a folder. Raises DevkitError with Maven's own words."""
    log = home.logs / "maven.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    command = [
        str(find_maven()), "--batch-mode", "--no-transfer-progress", "--file", str(home.pom),
        # Without these a connection that stalls is waited for without end.
        "-Dmaven.wagon.rto=60000", "-Dmaven.wagon.http.connectionTimeout=20000",
        "-Daether.connector.requestTimeout=60000", "-Daether.connector.connectTimeout=20000",
        "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}",
    ]  # fmt: skip
    status = supervise.run(supervise.Launch(command, log, grace_seconds=5, hold=hold), timeout_seconds)
    if status is None:
        raise DevkitError(
            f"Maven did not finish within {timeout_seconds:.0f} s; what it has is kept, so call the same again. "
            f"Its output ({log}) ends:\n{supervise.tail(log)}"
        )
    if status != 0 or not any(jars.glob("kafka_*.jar")):
        raise DevkitError(f"Maven could not fetch Kafka. Its output ({log}) ends:\n{supervise.tail(log, 40)}")


def format_logs(
    jars: KafkaJars, folder: Path, log: Path, arguments: Sequence[str] = (), hold: tuple[int, ...] = ()
) -> None:
    """Format a log folder by Kafka's own tool. `arguments` are the tool's, such as `--add-scram`."""
    settings = folder.with_name(f"{folder.name}.properties")
    settings.write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:9093\n"
        "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\ncontroller.listener.names=CONTROLLER\n"
        f"log.dirs={folder}\n"
    )
    command = [
        str(jars.java), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", jars.class_path,
        "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", str(settings), *arguments,
    ]  # fmt: skip
    status = supervise.run(supervise.Launch(command, log, hold=hold), 120)
    settings.unlink()
    if status != 0:
        raise DevkitError(f"Kafka's storage tool could not format {folder}:\n{supervise.tail(log)}")
