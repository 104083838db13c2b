"""The AsyncAPI document says of the public topics what the catalogue, the schemas and the envelope say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flux_common.contracts.catalogue import EVENTS, REQUESTS, TOPICS
from flux_common.contracts.envelope import headers_for
from flux_common.contracts.schema import schema_of
from flux_common.kernel.clock import from_millis

PUBLIC = [topic for topic in TOPICS if topic.per_agency]


@pytest.fixture(scope="module")
def document(repository: Path) -> dict[str, Any]:
    """Return the committed document."""
    loaded: dict[str, Any] = json.loads((repository / "schemas/asyncapi.json").read_bytes())
    return loaded


def test_its_channels_are_the_public_topics(document: dict[str, Any]) -> None:
    """Every topic of an agency is a channel with its events, and no internal topic is."""
    told = {channel["address"]: sorted(channel["messages"]) for channel in document["channels"].values()}

    assert told == {topic.of("{agency}"): sorted(e.model.__name__ for e in topic.events) for topic in PUBLIC}


def test_flux_receives_requests_and_sends_the_rest(document: dict[str, Any]) -> None:
    """There is one operation a channel, in the right direction, over all its messages."""
    told = {
        document["channels"][operation["channel"]["$ref"].removeprefix("#/channels/")]["address"]: operation["action"]
        for operation in document["operations"].values()
    }

    assert told == {topic.of("{agency}"): "receive" if topic is REQUESTS else "send" for topic in PUBLIC}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """The document stands alone: each `$ref` is a pointer to something inside it."""
    references = list(_references(document))

    assert references
    assert [reference for reference in references if _resolve(document, reference) is None] == []


@pytest.mark.parametrize("event", [event for topic in PUBLIC for event in topic.events], ids=lambda e: e.ce_type)
def test_a_message_has_its_events_schema(document: dict[str, Any], event: Any) -> None:
    """A message's body is the event's published schema, with its parts moved to the components."""
    own = json.loads(json.dumps(schema_of(event)).replace("#/$defs/", "#/components/schemas/"))
    parts = own.pop("$defs", {})
    schemas = document["components"]["schemas"]
    message = document["components"]["messages"][event.model.__name__]

    assert message["payload"] == {"$ref": f"#/components/schemas/{event.model.__name__}"}
    assert schemas[event.model.__name__] == {name: own[name] for name in own if name not in {"$schema", "$id"}}
    assert {name: schemas[name] for name in parts} == parts


@pytest.mark.parametrize("topic", PUBLIC, ids=lambda topic: topic.name)
def test_the_envelopes_headers_are_as_told(document: dict[str, Any], topic: Any) -> None:
    """The headers that Flux writes are valid by the message's headers schema; without `ce_id` they are not."""
    for event in topic.events:
        schema = document["components"]["messages"][event.model.__name__]["headers"]
        headers = headers_for(event, event_id="1", source="flux/test", at=from_millis(0), subject="s")
        told = {name: value.decode() for name, value in headers}
        if topic is REQUESTS:
            told["authorization"] = "Bearer a.b.c"

        assert Draft202012Validator(schema).is_valid(told)
        assert not Draft202012Validator(schema).is_valid({n: v for n, v in told.items() if n != "ce_id"})
        assert not Draft202012Validator(schema).is_valid(told | {"ce_type": "flux.other.v1"})


def test_who_asks_must_say_by_what_right(document: dict[str, Any]) -> None:
    """Only messages to Flux need an authorization header."""
    needing = {
        message["name"]
        for message in document["components"]["messages"].values()
        if "authorization" in message["headers"]["required"]
    }

    assert needing == {event.ce_type for event in REQUESTS.events} <= set(EVENTS)


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for item in node.values() for found in _references(item)]


def _resolve(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document.get(part) if isinstance(document, dict) else None
    return document
