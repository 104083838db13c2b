"""The public topics as an AsyncAPI 3 document, made from the catalogue.

Public is what belongs to an agency. The document is written for the agency's side of the wire, in one file, so that
any AsyncAPI tool can read it alone: bodies are the contract models, headers are CloudEvents 1.0 in Kafka binary mode.
Source: AsyncAPI 3.0.0; its Kafka bindings 0.5.0; CloudEvents 1.0.2, Kafka protocol binding §3.2.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from flux_common.contracts.catalogue import REQUESTS, TOPICS, EventSpec, TopicSpec
from flux_common.contracts.dialect import ContractSchema
from flux_common.contracts.schema import schema_id
from flux_common.contracts.types import AGENCY_PATTERN

VERSION: Final = "3.0.0"
KAFKA_BINDING: Final = "0.5.0"


def asyncapi() -> dict[str, Any]:
    """Return the document."""
    topics = [topic for topic in TOPICS if topic.per_agency]
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Flux",
            "version": "1.0.0",
            "description": "What an agency writes to Flux and reads from it. Readers use isolation level read_committed "
            "and drop events whose ce_id they have seen.",
        },
        "defaultContentType": "application/json",
        "channels": {_channel_name(topic): _channel(topic) for topic in topics},
        "operations": {f"{_action(topic)}.{_channel_name(topic)}": _operation(topic) for topic in topics},
        "components": {
            "messages": {event.model.__name__: _message(topic, event) for topic in topics for event in topic.events},
            "schemas": _schemas(topics),
        },
    }


def _channel_name(topic: TopicSpec) -> str:
    return topic.name.removeprefix("flux.<agency>.").removesuffix(".v1")


def _action(topic: TopicSpec) -> str:
    """Return what Flux does on the topic; its users do the opposite."""
    return "receive" if topic is REQUESTS else "send"


def _channel(topic: TopicSpec) -> dict[str, Any]:
    return {
        "address": topic.of("{agency}"),
        "description": f"Key: {topic.key}. From {', '.join(topic.producers)} to {', '.join(topic.consumers)}.",
        "parameters": {"agency": {"description": f"The agency's id, of the form {AGENCY_PATTERN}"}},
        "messages": {
            event.model.__name__: {"$ref": f"#/components/messages/{event.model.__name__}"} for event in topic.events
        },
        "bindings": {
            "kafka": {
                "partitions": topic.kafka_partitions,
                "topicConfiguration": {
                    "cleanup.policy": topic.cleanup_policy.split(","),
                    "retention.ms": topic.retention_ms,
                    "max.message.bytes": topic.record_bytes_max,
                },
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _operation(topic: TopicSpec) -> dict[str, Any]:
    channel = f"#/channels/{_channel_name(topic)}"
    return {
        "action": _action(topic),
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{event.model.__name__}"} for event in topic.events],
    }


def _message(topic: TopicSpec, event: EventSpec) -> dict[str, Any]:
    return {
        "name": event.ce_type,
        "title": event.model.__name__,
        "summary": (inspect.getdoc(event.model) or "").split("\n")[0],
        "contentType": "application/json",
        "headers": _headers(event, asks=topic is REQUESTS),
        "payload": {"$ref": f"#/components/schemas/{event.model.__name__}"},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": KAFKA_BINDING},
        },
    }


def _headers(event: EventSpec, *, asks: bool) -> dict[str, Any]:
    """Return the schema of an event's headers; who asks must also say by what right."""
    named: dict[str, Any] = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "minLength": 1, "description": "The idempotency key."},
        "ce_source": {"type": "string", "format": "uri-reference", "minLength": 1},
        "ce_type": {"const": event.ce_type},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string", "minLength": 1},
        "ce_dataschema": {"const": schema_id(event)},
        "content-type": {"const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C Trace Context."},
    }
    required = ["ce_id", "ce_type"] if asks else ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"]
    if asks:
        named["authorization"] = {
            "type": "string",
            "pattern": "^Bearer [A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$",
            "description": "A JSON Web Token of at most 8 KiB; it is never forwarded, stored or logged.",
        }
        named["flux-proof"] = {"type": "string", "description": "A proof JWS that binds the token to this record."}
        required = [*required, "authorization"]
    return {"type": "object", "required": required, "properties": named}


def _schemas(topics: list[TopicSpec]) -> dict[str, Any]:
    _, made = models_json_schema(
        [(event.model, "validation") for topic in topics for event in topic.events],
        ref_template="#/components/schemas/{model}",
        schema_generator=ContractSchema,
    )
    defined: dict[str, Any] = made["$defs"]
    return defined
