"""`make up`, what anybody can do then from the README and dev.env alone, and `make down`.

Any Kafka client can play producer and subscriber: here confluent-kafka, with nothing of Flux's SDK. The token is minted by
the command line, as a developer would; everything else is Kafka and JSON. `flux-etl` is told nothing but where dev.env is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer

from flux_devkit import background, jars
from flux_devkit.asking import texts
from flux_devkit.home import Home, locate
from flux_devkit.oracle import examine
from flux_devkit.provision import development_installation
from flux_devkit.servers import Servers
from flux_devkit.sessions import delete_data

AGENCY = "library-of-congress"
PROGRAMS = {"flux_ingest", "flux_checkpoint", "flux_transform", "flux_audit", "kafka.Kafka", "postgres"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, flux_home: Home) -> Iterator[Home]:
    """A home of its own that borrows the jars, on which `up` was called."""
    installed = jars.install(flux_home)
    home = locate({"FLUX_HOME": str(tmp_path_factory.mktemp("up") / "home")})
    (home.root / installed.folder.name).symlink_to(installed.folder)
    flux_dev(home, "up")
    yield home
    background.down(home)
    delete_data(home.data)


def flux_dev(home: Home, verb: str) -> str:
    """Do what `make` does for `up` and `down`; return what is said."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FLUX_")}
    environment = plain | {"FLUX_HOME": str(home.root), "FLUX_STACK": "embedded"}
    return said([Path(sys.executable).with_name("flux-dev"), verb], environment)


def flux_etl(home: Home, *words: str) -> str:
    """Type a command for the agency; return what is said."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home.root), "FLUX_DEV_ENV": str(home.dev_env)}
    return said([sys.executable, "-m", "flux_client", *words, "--agency", AGENCY], environment)


def said(command: list[Any], environment: dict[str, str]) -> str:
    """Return the standard output of a command that ends well."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def a_request(home: Home, request_id: str) -> dict[str, Any]:
    """Return a request for four texts below the folder that dev.env names."""
    files = Path(home.read_dev_env()["FLUX_FILES_DIR"]).resolve()
    source = texts(files / "archives" / AGENCY / request_id, 4)
    return {
        "request_id": request_id,
        "source": {"uri": f"{source.as_uri()}/"},
        "content_type": "text",
        "use_case": "research",
        "destination": {"uri": f"{(files / 'datasets' / AGENCY).as_uri()}/"},
    }


def write(bootstrap: str, request: dict[str, Any], token: str) -> None:
    """Write the request as the README says."""
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(
        f"flux.{AGENCY}.run.requests.v1",
        key=request["request_id"],
        value=json.dumps(request),
        headers={
            "ce_specversion": "1.0",
            "ce_id": f"{request['request_id']}/1",
            "ce_source": "my-producer",
            "ce_type": "flux.run.requested.v1",
            "content-type": "application/json",
            "authorization": f"Bearer {token}",
        },
    )
    assert producer.flush(10) == 0


def read(bootstrap: str, request_id: str, *wanted: str, seconds: float = 90) -> list[dict[str, Any]]:
    """Return the first event of each wanted type about the request, in this order."""
    settings = {"isolation.level": "read_committed", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings | {"bootstrap.servers": bootstrap, "group.id": f"flux.{AGENCY}.reader"})
    consumer.subscribe([f"flux.{AGENCY}.run.decisions.v1", f"flux.{AGENCY}.run.completions.v1"])
    deadline, found = time.monotonic() + seconds, dict[str, dict[str, Any]]()
    while not set(wanted) <= found.keys():
        assert time.monotonic() < deadline, f"only {found.keys()} within {seconds} s"
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            body = json.loads(message.value())
            if body["request_id"] == request_id:
                found.setdefault(dict(message.headers())["ce_type"].decode(), body)
    consumer.close()
    return [found[name] for name in wanted]


def test_a_run_by_a_client_that_knows_nothing_but_kafka(home: Home) -> None:
    """Request with headers in, decision and completion out, read_committed."""
    bootstrap = home.read_dev_env()["FLUX_KAFKA_BOOTSTRAP"]
    write(bootstrap, a_request(home, "foreign-1"), flux_etl(home, "token", "mint").strip())
    accepted, completed = read(bootstrap, "foreign-1", "flux.run.accepted.v1", "flux.run.completed.v1")

    assert accepted["run_id"] == completed["run_id"]
    assert completed["counts"]["written"] == 4


def test_a_run_is_submitted_followed_and_explained_by_flux_etl(home: Home) -> None:
    """With no option but the agency."""
    file = home.root / "run.json"
    file.write_text(json.dumps(a_request(home, "letters-1")))
    story = json.loads(flux_etl(home, "submit", "-f", str(file), "--wait", "-o", "json"))
    listed = {run["request_id"]: run for run in json.loads(flux_etl(home, "runs", "ls", "-o", "json"))}
    at = story["decision"]["position"]
    position = (at["topic"], str(at["kafka_partition"]), str(at["offset"]))
    explained = json.loads(flux_etl(home, "explain", *position, "-o", "json"))

    assert (story["outcome"]["type"], story["outcome"]["counts"]["written"]) == ("flux.run.completed.v1", 4)
    assert (listed["letters-1"]["run_id"], listed["letters-1"]["state"]) == (story["run_id"], "COMPLETED")
    assert (explained["class"], explained["decision"]["run_id"]) == ("effect", story["run_id"])


def test_down_leaves_no_process_of_it(home: Home) -> None:
    """The oracle has read what was done; then one command ends the servers, the services and whatever they started."""
    variables, pid = home.read_dev_env(), background.status(home).pid
    assert pid is not None
    servers = Servers(variables["FLUX_KAFKA_BOOTSTRAP"], variables["FLUX_POSTGRES_DSN"])
    report = examine(development_installation(home, servers), settled=True, quiescent=True, patience_s=120.0)
    owner = psutil.Process(pid)
    ours = [owner, *owner.children(recursive=True)]
    programs = {Path(word).name for process in ours for word in words_of(process)}
    flux_dev(home, "down")

    report.assert_clean()
    assert programs >= PROGRAMS
    assert [process for process in ours if words_of(process)] == []
    assert not home.dev_env.exists()


def words_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; one that has ended, or whose id is another's now, has none."""
    with suppress(psutil.Error):
        return process.cmdline() if process.is_running() else []
    return []
