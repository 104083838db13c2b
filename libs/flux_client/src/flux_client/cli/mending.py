"""`flux-etl lanes` and `flux-etl outbox`: what an operator decides about a service's lanes and its parked events.

Both need the service's own role: FLUX_INGEST_DSN, FLUX_CHECKPOINT_DSN or FLUX_AUDIT_DSN, with …_PASSWORD_FILE.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from flux_client.cli import environment
from flux_client.cli.exits import Ended, Exit
from flux_client.cli.options import Format, Output
from flux_client.cli.output import say, show

if TYPE_CHECKING:
    from flux_client.mending import Mender

LANES = ("service", "topic", "kafka_partition", "next_offset", "log_start", "log_end", "state")
PARKED = ("service", "topic", "code", "events", "since")
REASON_CHARS_MAX = 200
Found = TypeVar("Found")
Topic = Annotated[str, typer.Argument(help="The topic's catalogue name.")]
Sure = Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be done.")]

lanes = typer.Typer(no_args_is_help=True, help="The lanes of the services: how far each has read.")
outbox = typer.Typer(no_args_is_help=True, help="Events that the brokers would not take.")


@lanes.command("ls")
def list_lanes(output: Output = Format.TABLE) -> None:
    """List the lanes of every service whose role is named, and how each stands to its log.

    inside: all is well. lost N: the log begins N offsets later, see `lanes accept-loss`. above the log, another topic,
    no topic: docs/operations.md, First aid.
    """
    found = asyncio.run(_of_all(lambda mender: mender.lanes()))
    show(found, output, LANES)


@lanes.command("accept-loss")
def accept_loss(
    topic: Topic,
    kafka_partition: Annotated[int, typer.Argument(min=0, metavar="PARTITION", help="The Kafka partition.")],
    reason: Annotated[str, typer.Option("--reason", help="Why the records cannot be had again; kept in the ledger.")],
    yes: Sure = False,
    output: Output = Format.TABLE,
) -> None:
    """Let a lane go on at its log's start, although records before it were never read.

    The range is booked as lost, and a fact of it goes into the audit log. First try to have the records restored: this
    cannot be taken back. Afterwards restart one process of the service, so that the lane is taken again.
    """
    from flux_common.kernel.errors import LaneStopped
    from flux_common.kernel.positions import TopicPartition

    if not reason.strip() or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        hint = f"say in at most {REASON_CHARS_MAX} characters on one line what happened to the records"
        raise Ended(Exit.USAGE, "the reason is empty, too long or not printable", hint)
    tp = TopicPartition(topic, kafka_partition)
    if not yes:
        found = asyncio.run(_of_one(topic, lambda mender: mender.lanes()))
        here = [row for row in found if (row["topic"], row["kafka_partition"]) == (topic, kafka_partition)]
        show(here, output, LANES[1:])
        raise Ended(Exit.USAGE, "nothing was done", "say --yes to accept what is lost, if the state says so")
    try:
        lost = asyncio.run(_of_one(topic, lambda mender: mender.accept_loss(tp, reason)))
    except LaneStopped as refused:
        raise Ended(Exit.REFUSED, refused.message, "`flux-etl lanes ls` says how each lane stands") from None
    result = {"topic": topic, "kafka_partition": kafka_partition, "first": lost.first, "last": lost.last}
    show({**result, "goes_on_at": lost.goes_on_at}, output)
    say(f"restart one process of {_service(topic)}, so that the lane is taken again")


@outbox.command("parked")
def parked(output: Output = Format.TABLE) -> None:
    """List parked events by topic and code. TOPIC_PARKED are those that wait behind another one of their topic."""
    show(asyncio.run(_of_all(lambda mender: mender.parked())), output, PARKED)


@outbox.command("release")
def release(
    topic: Topic,
    service: Annotated[str, typer.Option("--service", help="Whose outbox: ingest, checkpoint or audit.")],
) -> None:
    """Send a topic's parked events, in their old order, once the brokers take them: mend the cause first.

    An event that is refused again is parked again, with those behind it. A fact of it goes into the audit log.
    """
    count = asyncio.run(_with(service, lambda mender: mender.release(topic)))
    if not count:
        raise Ended(Exit.NOT_FOUND, f"{service} has no parked events of {topic}", "see `flux-etl outbox parked`")
    say(f"{count} events of {topic} are on their way again")


def _service(topic: str) -> str:
    from flux_client.mending import service_of

    service = service_of(topic)
    if service is None:
        raise Ended(Exit.NOT_FOUND, f"no lane reads a topic {topic}", "see schemas/catalogue.json")
    return service


async def _of_one(topic: str, act: Callable[[Mender], Awaitable[Found]]) -> Found:
    return await _with(_service(topic), act)


async def _of_all(act: Callable[[Mender], Awaitable[list[dict[str, object]]]]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    services = environment.ledger_settings()
    if not services:
        raise Ended(Exit.USAGE, "no service's role is named", _HINT)
    for service in services:
        found += [{"service": service, **row} for row in await _with(service, act)]
    return found


async def _with(service: str, act: Callable[[Mender], Awaitable[Found]]) -> Found:
    from flux_client.mending import mending
    from flux_common.kernel.clock import SystemClock

    settings = environment.ledger_settings().get(service)
    if settings is None:
        raise Ended(Exit.USAGE, f"the role of {service} is not named", _HINT)
    async with mending(service, settings, environment.kafka_settings(), SystemClock()) as mender:
        return await act(mender)


_HINT = (
    "set FLUX_INGEST_DSN, FLUX_CHECKPOINT_DSN or FLUX_AUDIT_DSN, with …_PASSWORD_FILE: this is the service's own role"
)
