"""The catalogue's topics are named, owned and configured as the design says."""

from __future__ import annotations

import re

import pytest

from flux_common.contracts.catalogue import (
    DECISIONS,
    EVENTS,
    PROGRESS,
    REQUESTS,
    TOPICS,
    TopicSpec,
    agency_in,
    topic_names,
)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_is_public_or_internal(topic: TopicSpec) -> None:
    """A topic belongs to one agency by its prefix, or to Flux; both end in a version; somebody writes and reads it."""
    form = r"flux\.<agency>\.[a-z.-]+\.v1" if topic.per_agency else r"flux-internal\.[a-z-]+\.v1"

    assert re.fullmatch(form, topic.name)
    assert topic.producers
    assert topic.consumers


def test_an_event_is_on_one_topic() -> None:
    """No event type is carried by two topics, so a type says where it came from."""
    assert len(EVENTS) == sum(len(topic.events) for topic in TOPICS)


def test_arrival_is_the_brokers_where_it_counts() -> None:
    """Requests and progress carry the broker's time, as nobody else's proves when a record arrived."""
    stamped = {topic.name for topic in TOPICS if topic.timestamp_type == "LogAppendTime"}

    assert stamped == {REQUESTS.name, PROGRESS.name}
    assert REQUESTS.config(development=True)["message.timestamp.type"] == "LogAppendTime"


def test_two_replicas_outside_development() -> None:
    """A record counts as written when two replicas have it; one broker in development can have but one."""
    kept = [REQUESTS.config(development=development)["min.insync.replicas"] for development in (True, False)]

    assert kept == ["1", "2"]


def test_names_of_agencies() -> None:
    """A template stands for one topic an agency, an internal topic for itself."""
    assert topic_names(DECISIONS, ["nasa", "loc"]) == ["flux.loc.run.decisions.v1", "flux.nasa.run.decisions.v1"]
    assert topic_names(PROGRESS, ["nasa"]) == ["flux-internal.progress.v1"]


def test_a_topic_names_its_agency() -> None:
    """Who explains a record of an agency's topic need not say whose it is; topics of Flux's own belong to nobody."""
    own = ["flux.nasa.run.requests.v1", "flux.library-of-congress.dead-letters.v1"]
    others = [
        "flux-internal.progress.v1",
        "flux.nasa.other.v1",
        "nasa.run.requests.v1",
        "flux.<agency>.run.requests.v1",
    ]

    assert [agency_in(topic) for topic in own] == ["nasa", "library-of-congress"]
    assert [agency_in(topic) for topic in others] == [None] * 4
