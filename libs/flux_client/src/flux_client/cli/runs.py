"""`flux-etl submit` and `flux-etl runs …`: ask for runs, look at them, command them."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flux_client.cli import environment
from flux_client.cli.exits import Ended, Exit
from flux_client.cli.options import Agency, Format, Output, ProofKey, Role, Run, TokenFile
from flux_client.cli.output import say, show, show_line

if TYPE_CHECKING:
    from flux_client.cli.asking import Means
    from flux_client.reader import Row
    from flux_common.contracts.types import CommandName

LIST = (
    "request_id",
    "run_id",
    "state",
    "run_attempt",
    "objects",
    "read",
    "rejected",
    "code",
    "admitted_at",
    "ended_at",
)
HISTORY = ("event_no", "happened_at", "type", "kind", "number", "term", "seq", "code")
EVENTS_PAGE = 1_000

app = typer.Typer(no_args_is_help=True, help="Look at runs, and cancel, pause, resume or retry them.")


class State(StrEnum):
    """The states of a run."""

    ADMITTED = "ADMITTED"
    PLANNING = "PLANNING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FINALIZING = "FINALIZING"
    COMPLETED = "COMPLETED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


def submit(
    file: Annotated[str, typer.Option("--file", "-f", help="The request, a JSON file; - reads standard input.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the decision and for the run's end.")] = False,
    decision: Annotated[bool, typer.Option("--decision", help="Wait for the decision alone.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.1, help="Seconds to wait. Default: 60 for the decision, no end.")
    ] = None,
    agency: Agency = None,
    token_file: TokenFile = None,
    proof_key: ProofKey = None,
    role: Role = "operator",
    output: Output = Format.TABLE,
) -> None:
    """Submit a run request.

    Without --wait it returns once Kafka holds the request. With --wait progress goes to standard error, and the exit
    status says how the run ended: 0 completed, 4 refused, 5 failed, 6 cancelled, 7 not within --timeout.
    """
    from flux_client.cli import asking
    from flux_client.producer import DecisionMissing

    document, means = _read_request(file), _means(agency, token_file, role, proof_key)
    try:
        if not (wait or decision):
            show(asyncio.run(asking.submit(means, document)), output)
            return
        act = asking.submit_and_end if wait else asking.submit_and_decide
        _finish(*asyncio.run(act(means, document, timeout)), output)
    except DecisionMissing as missing:
        raise asking.unanswered(missing) from None


@app.command("ls")
def list_runs(
    state: Annotated[State | None, typer.Option("--state", help="Only runs of this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 50,
    agency: Agency = None,
    output: Output = Format.TABLE,
) -> None:
    """List runs, newest first."""
    from flux_client.reader import reading

    settings, named = environment.reader_settings(), environment.agency_of(agency)

    async def read() -> list[Row]:
        async with reading(settings, named) as reader:
            return await reader.runs(state, limit)

    show(asyncio.run(read()), output, LIST)


@app.command("get")
def get_run(run: Run, agency: Agency = None, output: Output = Format.TABLE) -> None:
    """Show everything about a run: state, counts, rejects by code, partitions, manifest."""
    from flux_client.cli.asking import found
    from flux_client.reader import reading

    settings, named = environment.reader_settings(), environment.agency_of(agency)

    async def read() -> Row:
        async with reading(settings, named) as reader:
            run_id = await found(reader, run)
            row = await reader.run(run_id)
            assert row is not None
            return {**row, "items": await reader.items(run_id)}

    show(asyncio.run(read()), output)


@app.command("events")
def list_events(
    run: Run,
    after: Annotated[int, typer.Option("--after", min=0, help="Only events behind this event number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many at most.")] = EVENTS_PAGE,
    follow: Annotated[bool, typer.Option("--follow", help="Go on, one event a line, until the run has ended.")] = False,
    agency: Agency = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a run's history, oldest first."""
    settings, named = environment.reader_settings(), environment.agency_of(agency)
    if follow:
        asyncio.run(_follow_events(settings, named, run, after, output))
    else:
        show(asyncio.run(_events(settings, named, run, after, limit)), output, HISTORY)


@app.command("watch")
def watch_run(run: Run, agency: Agency = None, output: Output = Format.TABLE) -> None:
    """Watch a run until it has ended; the exit status says how (0 completed, 5 failed, 6 cancelled)."""
    from flux_client.cli import asking
    from flux_client.reader import as_uuid
    from flux_common.kernel.ids import run_id

    named, reader = environment.agency_of(agency), environment.reader_settings_if_any()
    if reader is not None:
        _finish(*asyncio.run(asking.watch_rows(reader, named, run)), output)
        return
    means = asking.Means(named, environment.kafka_settings())
    watched = run if as_uuid(run) else str(run_id(named, run))
    _finish(*asyncio.run(asking.watch_topics(means, watched)), output)


def _declare_command(verb: CommandName, about: str) -> None:
    """Declare `runs VERB`. The four differ in nothing but their word."""

    def act(
        run: Run,
        reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the run's history.")],
        command_id: Annotated[
            str | None,
            typer.Option("--command-id", help="Names the command, so that sending it again changes nothing."),
        ] = None,
        wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is applied or refused.")] = True,
        timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait at most.")] = 60.0,
        agency: Agency = None,
        token_file: TokenFile = None,
        proof_key: ProofKey = None,
        role: Role = "operator",
        output: Output = Format.TABLE,
    ) -> None:
        from flux_client.cli import asking
        from flux_client.producer import DecisionMissing

        means = _means(agency, token_file, role, proof_key)
        request_id = asyncio.run(_request_id(means, run))
        try:
            if not wait:
                show(asyncio.run(asking.command(means, request_id, verb, reason, command_id)), output)
                return
            answer = asking.command_and_answer(means, request_id, verb, reason, command_id, timeout)
            _finish(*asyncio.run(answer), output)
        except DecisionMissing as missing:
            raise asking.unanswered(missing) from None

    act.__doc__ = about
    app.command(verb)(act)


_declare_command("cancel", "Cancel a run; what it wrote is not a dataset.")
_declare_command("pause", "Pause a run: nothing new is started, what runs finishes.")
_declare_command("resume", "Resume a paused run.")
_declare_command("retry", "Retry a failed run; what is finished is kept.")


def _means(agency: str | None, token_file: Path | None, role: str, proof_key: Path | None) -> Means:
    from flux_client.cli.asking import Means

    named, token = environment.agency_of(agency), environment.token_from(token_file)
    return Means(
        named,
        environment.kafka_settings(),
        token=token,
        key=environment.issuer_key(named, role) if token is None else None,
        proof_key=environment.proof_key(proof_key) if proof_key else None,
        reader=environment.reader_settings_if_any(),
    )


def _read_request(file: str) -> dict[str, Any]:
    """Return the JSON object in `file`, read as strictly as Flux reads it."""
    from flux_common.contracts.intake import parse
    from flux_common.kernel.errors import ValidationFailed

    try:
        document = parse(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise Ended(
            Exit.NOT_FOUND, f"{file}: {error.strerror}", "name a file that can be read, or - for input"
        ) from None
    except ValidationFailed as error:
        raise Ended(Exit.USAGE, f"{file}: {error.message}", "a request is one strict JSON object") from None
    if not isinstance(document, dict):
        raise Ended(Exit.USAGE, f"{file} holds no JSON object", "schemas/examples/run.requested shows requests")
    return document


async def _request_id(means: Means, run: str) -> str:
    """Return the request id by which a command names its run; without a reader, `run` must be it."""
    from flux_client.cli.asking import found
    from flux_client.reader import as_uuid, reading

    if means.reader is None:
        return run
    async with reading(means.reader, means.agency) as reader:
        row = await reader.find(run)
        if row is None and as_uuid(run) is not None:
            await found(reader, run)
    return run if row is None else str(row["request_id"])


async def _events(settings: Any, agency: str, run: str, after: int, limit: int) -> list[Row]:
    from flux_client.cli.asking import found
    from flux_client.reader import reading

    async with reading(settings, agency) as reader:
        return await reader.events(await found(reader, run), after, limit)


async def _follow_events(settings: Any, agency: str, run: str, after: int, output: Format) -> None:
    from flux_client.cli.asking import found
    from flux_client.reader import reading
    from flux_client.watching import TERMINAL_STATES

    async with reading(settings, agency) as reader:
        run_id = await found(reader, run)
        while True:
            summary = await reader.summary(run_id)
            rows = await reader.events(run_id, after, EVENTS_PAGE)
            for row in rows:
                show_line(row if output is not Format.TABLE else {name: row[name] for name in HISTORY}, output)
                after = row["event_no"]
            if not rows:
                if summary is None or summary["state"] in TERMINAL_STATES:
                    return
                await asyncio.sleep(0.5)


def _finish(story: Row, status: int, output: Format) -> None:
    """Show how it ended, and end so."""
    from flux_client.cli.asking import refusal_of

    show(story, output)
    if status == Exit.REFUSED:
        raise Ended(status, *refusal_of(story))
    if status != Exit.OK:
        say(f"flux-etl: the run ended with exit status {int(status)} ({Exit(status).name.lower().replace('_', ' ')})")
        raise Ended(status)
