"""Any Kafka client can play producer and subscriber from the README alone: here confluent-kafka, with nothing of Flux's SDK.

The token is minted by the command line, as a developer would; everything else is Kafka and JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from confluent_kafka import Consumer, Producer

from flux_devkit.asking import texts
from flux_devkit.flux import Flux


def read(consumer: Any, wanted: str, request_id: str, seconds: float = 90) -> dict[str, Any]:
    """Return the first event of type `wanted` about the request."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None or message.error():
            continue
        body = json.loads(message.value())
        if dict(message.headers())["ce_type"].decode() == wanted and body["request_id"] == request_id:
            return dict(body)
    raise AssertionError(f"no {wanted} within {seconds} s")


def test_a_run_by_a_client_that_knows_nothing_but_kafka(flux: Flux) -> None:
    """Request with headers in, decision and completion out, read_committed."""
    installation = flux.installation
    agency, prefix = "library-of-congress", installation.topic_prefix
    source = texts(flux.folder("archives", agency, "foreign"), 4)
    token = subprocess.run(
        [sys.executable, "-m", "flux_client", "token", "mint", "--agency", agency],
        env={"FLUX_KEYS_DIR": str(installation.keys), "PATH": "", "HOME": str(installation.folder)},
        check=True, capture_output=True, text=True, cwd=installation.folder,
    ).stdout.strip()  # fmt: skip
    request = {
        "request_id": "foreign-1",
        "source": {"uri": source.resolve().as_uri() + "/"},
        "content_type": "text",
        "use_case": "research",
        "destination": {"uri": flux.folder("datasets", agency).resolve().as_uri() + "/"},
    }
    producer = Producer({"bootstrap.servers": installation.servers.kafka_bootstrap})
    producer.produce(
        f"{prefix}flux.{agency}.run.requests.v1",
        key="foreign-1",
        value=json.dumps(request),
        headers={
            "ce_specversion": "1.0",
            "ce_id": "foreign-1/1",
            "ce_source": "my-producer",
            "ce_type": "flux.run.requested.v1",
            "content-type": "application/json",
            "authorization": f"Bearer {token}",
        },
    )
    producer.flush(10)
    consumer = Consumer(
        {
            "bootstrap.servers": installation.servers.kafka_bootstrap,
            "group.id": f"{prefix}flux.{agency}.reader",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([f"{prefix}flux.{agency}.run.decisions.v1", f"{prefix}flux.{agency}.run.completions.v1"])
    accepted = read(consumer, "flux.run.accepted.v1", "foreign-1")
    completed = read(consumer, "flux.run.completed.v1", "foreign-1")
    consumer.close()

    assert accepted["run_id"] == completed["run_id"]
    assert completed["counts"]["written"] == 4
