"""The embedded Kafka is a real one, and comes back as the same one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from flux_devkit.errors import DevkitError, StartFailed
from flux_devkit.home import Home
from flux_devkit.kafka import EmbeddedKafka, KafkaOptions, answering_brokers
from flux_devkit.plugin import FreshKafka


def test_a_record_comes_back(kafka_bootstrap: str, topic_prefix: str) -> None:
    """Produce and consume through the session's broker."""
    topic = create_topic(kafka_bootstrap, f"{topic_prefix}requests")
    produce(kafka_bootstrap, topic, b"hello")

    assert consume(kafka_bootstrap, topic) == [b"hello"]


def test_topics_are_never_made_by_accident(kafka_bootstrap: str, topic_prefix: str) -> None:
    """A send to a topic that nobody created fails, and the topic is not there afterwards."""
    topic = f"{topic_prefix}never-made"
    with pytest.raises(KafkaException):
        produce(kafka_bootstrap, topic, b"lost")

    assert topic not in AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=10).topics


def test_a_killed_broker_comes_back_at_its_address_with_its_records(fresh_kafka: FreshKafka) -> None:
    """SIGKILL, start again: same address, nothing lost that was acknowledged."""
    broker = fresh_kafka()
    before = broker.bootstrap
    topic = create_topic(before, "kept")
    produce(before, topic, b"kept")
    broker.kill()
    gone = answering_brokers({"bootstrap.servers": before}, 0.3)
    broker.start()

    assert (gone, broker.bootstrap, consume(before, topic)) == (0, before, [b"kept"])


def test_a_paused_broker_does_not_answer_until_it_is_resumed(fresh_kafka: FreshKafka) -> None:
    """SIGSTOP and SIGCONT."""
    broker = fresh_kafka()
    broker.pause()
    while_paused = answering_brokers(broker.client_settings(), 1.0)
    broker.resume()

    assert (while_paused, answering_brokers(broker.client_settings(), 20.0)) == (0, 1)


def test_properties_of_a_fresh_broker_take_effect(fresh_kafka: FreshKafka) -> None:
    """The broker itself reports what the test asked for."""
    broker = fresh_kafka(message_max_bytes="54321")

    assert broker_setting(broker, "message.max.bytes") == "54321"


def test_a_broker_that_cannot_start_shows_its_own_words(home: Home, tmp_path: Path) -> None:
    """The log's last lines are in the error, and no process is left."""
    broker = EmbeddedKafka(home, tmp_path / "broken", KafkaOptions(properties={"node.id": "many"}))
    with pytest.raises(StartFailed, match="Invalid value many "):
        broker.start()

    with pytest.raises(DevkitError, match="not running"):
        broker.pause()


def test_scram_users_log_in_and_strangers_do_not(home: Home, tmp_path: Path) -> None:
    """Properties, format arguments and client settings are enough for a broker with passwords."""
    with EmbeddedKafka(home, tmp_path / "scram", scram_options()) as broker:
        known = answering_brokers(broker.client_settings(), 10)
        stranger = answering_brokers({**broker.client_settings(), "sasl.password": "wrong"}, 1.5)

    assert (known, stranger) == (1, 0)


def test_the_broker_ends_with_a_killed_parent(home: Home, tmp_path: Path) -> None:
    """A parent killed with SIGKILL leaves no Java."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom flux_devkit.home import locate\n"
        "from flux_devkit.kafka import EmbeddedKafka\n"
        "broker = EmbeddedKafka(locate(), Path(sys.argv[1])).start()\n"
        "print(broker.process.pid, flush=True)\ntime.sleep(300)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "broker")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"FLUX_HOME": str(home.root)}) as parent:
        assert parent.stdout is not None
        java = psutil.Process(int(parent.stdout.readline()))
        name = java.name()
        parent.kill()
    psutil.wait_procs([java], timeout=40)

    assert (name, java.is_running()) == ("java", False)


def scram_options() -> KafkaOptions:
    """One user, `admin`, who logs in with SCRAM-SHA-512."""
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    return KafkaOptions(
        properties={
            "listeners": "SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": "SASL_PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "inter.broker.listener.name": "SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": f'{scram} username="admin" password="right";',
        },
        client={
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "admin",
            "sasl.password": "right",
        },
        format_arguments=("--add-scram", "SCRAM-SHA-512=[name=admin,password=right]"),
    )


def create_topic(bootstrap: str, topic: str) -> str:
    """A topic of one partition."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)
    return topic


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    """Send one record and wait for its acknowledgement; raises what the broker said."""
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 3000, "log_level": 0})
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    if errors[0] is not None:
        raise KafkaException(errors[0])


def consume(bootstrap: str, topic: str) -> list[bytes | None]:
    """Every record of the topic's only partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "log_level": 0})
    partition = TopicPartition(topic, 0, 0)
    consumer.assign([partition])
    _, end = consumer.get_watermark_offsets(partition, timeout=10)
    values: list[bytes | None] = []
    deadline = time.monotonic() + 20
    while len(values) < end and time.monotonic() < deadline:
        record = consumer.poll(0.5)
        if record is not None and record.error() is None:
            values.append(record.value())
    consumer.close()
    return values


def broker_setting(broker: EmbeddedKafka, name: str) -> str:
    """A setting as the broker reports it."""
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    admin = AdminClient(broker.client_settings())
    return str(admin.describe_configs([resource])[resource].result(10)[name].value)
