"""The order of choice among given, contained and embedded servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_devkit.errors import DevkitError
from flux_devkit.home import Home
from flux_devkit.servers import Place, choose_kafka, choose_kind, choose_postgres, something_listens

PLACE = Place(Home(Path("/h"), Path("/c")), Path("/d"), Path("/l"))
NO_DOCKER = {"DOCKER_HOST": "unix:///no/such/socket"}


def test_given_servers_come_first_each_for_itself() -> None:
    """A given Kafka does not make PostgreSQL a given one."""
    environ = {"FLUX_KAFKA_BOOTSTRAP": "kafka.example:9092", "FLUX_STACK": "embedded"}
    kafka, postgres = choose_kafka(PLACE, environ=environ), choose_postgres(PLACE, environ=environ)

    assert (kafka.kind, kafka.bootstrap, postgres.kind) == ("given", "kafka.example:9092", "embedded")


def test_a_given_postgresql_is_used_as_it_is() -> None:
    """Its DSN is not touched."""
    server = choose_postgres(PLACE, environ={"FLUX_POSTGRES_DSN": "postgresql://u:p@h/d"})

    assert (server.kind, server.dsn) == ("given", "postgresql://u:p@h/d")


def test_without_a_docker_engine_servers_are_embedded() -> None:
    """An engine that does not answer counts as none."""
    assert choose_kind(NO_DOCKER) == "embedded"


@pytest.mark.parametrize("kind", ["embedded", "containers"])
def test_flux_stack_settles_it(kind: str) -> None:
    """Whether or not an engine answers."""
    assert choose_kind({**NO_DOCKER, "FLUX_STACK": kind}) == kind


def test_containers_are_chosen_when_asked_for() -> None:
    """Both of them."""
    environ = {"FLUX_STACK": "containers"}

    assert (choose_kafka(PLACE, environ=environ).kind, choose_postgres(PLACE, environ=environ).kind) == (
        "containers",
        "containers",
    )


def test_an_unknown_choice_is_refused() -> None:
    """The message names the legal ones."""
    with pytest.raises(DevkitError, match="'podman'; it may be embedded or containers"):
        choose_kind({"FLUX_STACK": "podman"})


@pytest.mark.parametrize("address", ["unix:///no/such/socket", "tcp://127.0.0.1:1"])
def test_nothing_listens_where_nothing_is(address: str) -> None:
    """Said without Docker's client, which leaves sockets open when it fails."""
    assert not something_listens(address)
