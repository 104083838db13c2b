"""`flux-etl explain | lag | topics | agencies | token | dev`: what an operator of an installation asks."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flux_client.cli import environment
from flux_client.cli.exits import Ended, Exit
from flux_client.cli.options import Agency, Format, Output, ProofKey
from flux_client.cli.output import print_line, say, show

if TYPE_CHECKING:
    from flux_client.reader import Row
    from flux_common.kafka.admin import TopicsReport
    from flux_common.kernel.positions import Position

LAG = ("group", "topic", "kafka_partition", "committed", "end", "lag")
AGENCIES = ("agency", "name", "suspended", "binding_required", "issuers", "keys")
BIND_BY_PROOF = "proof"
TOPICS = ("topic", "state", "id")

topics = typer.Typer(no_args_is_help=True, help="The topics job.")
agencies = typer.Typer(no_args_is_help=True, help="The agency registry.")
token = typer.Typer(no_args_is_help=True, help="Tokens for development.")
dev = typer.Typer(no_args_is_help=True, help="A development installation on this machine.")


def explain(
    topic: Annotated[str, typer.Argument(help="The topic's catalogue name.")],
    kafka_partition: Annotated[int, typer.Argument(min=0, metavar="PARTITION", help="The Kafka partition.")],
    offset: Annotated[int, typer.Argument(min=0, help="The record's offset.")],
    agency: Agency = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what became of one record: effect, duplicate, fenced, dead_letter, control, lost, unread or unknown.

    A topic of an agency names it; of a topic of Flux's own, --agency says who asks.
    The consuming service's ledger knows best; it is read where FLUX_INGEST_DSN, FLUX_CHECKPOINT_DSN or FLUX_AUDIT_DSN
    (with …_PASSWORD_FILE) name its role. Without it the answer rests on what the agency itself can see.
    """
    from flux_client.explaining import UnknownTopic
    from flux_common.contracts.catalogue import agency_in
    from flux_common.kernel.positions import TopicPartition

    position = TopicPartition(topic, kafka_partition).at(offset)
    try:
        found = asyncio.run(_explain(environment.agency_of(agency or agency_in(topic)), position))
    except UnknownTopic:
        hint = "see schemas/catalogue.json; a topic of another agency is explained with --agency"
        raise Ended(Exit.NOT_FOUND, f"the catalogue has no topic {topic} of this agency", hint) from None
    show(found, output)


def lag(
    all_groups: Annotated[bool, typer.Option("--all", help="Also groups that are not Flux's own.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show how far behind the consumer groups are, per Kafka partition."""
    from dataclasses import asdict

    from flux_client.lag import GROUP_PREFIX, lags

    found = asyncio.run(lags(environment.kafka_settings(), "" if all_groups else GROUP_PREFIX))
    show([{**asdict(one), "lag": one.lag} for one in found], output, LAG)


@topics.command("apply")
def apply_topics(
    agencies_file: Annotated[
        Path | None, typer.Option("--agencies", help="The registry. Default: FLUX_AGENCIES_FILE.")
    ] = None,
    development: Annotated[
        bool, typer.Option("--development", help="One replica, and none need have a record but the leader.")
    ] = False,
    replication: Annotated[int | None, typer.Option("--replication", min=1, help="Replicas. Default: 3.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Create every topic of the catalogue that is missing; never delete or alter one.

    What differs from the catalogue is listed on standard error, and makes exit status 9.
    """
    from flux_common.auth import load_registry
    from flux_common.kafka.admin import create_topics

    registry = load_registry(environment.agencies_file(agencies_file))
    work = create_topics(
        environment.kafka_settings(), sorted(registry.agencies), development=development, replication=replication
    )
    report = asyncio.run(work)
    show(_topic_rows(report), output, TOPICS)
    if report.drift:
        hint = "nothing was altered: decide, and alter the topic by hand or take the catalogue's next version"
        raise Ended(Exit.FAULTS, "\n".join(["topics differ from the catalogue:", *report.drift]), hint)


@agencies.command("check")
def check_agencies(
    file: Annotated[Path | None, typer.Argument(help="The registry. Default: FLUX_AGENCIES_FILE.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Also fetch the key sets that are named by URLs.")] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file", envvar="FLUX_JWKS_CA_FILE", help="CA certificates (PEM) for --fetch. Default: the system's."
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Check an agency registry and every key set that it names; list the agencies, or every fault (exit status 9)."""
    from flux_client.cli.checking import check

    show(check(environment.agencies_file(file), fetch=fetch, ca_file=ca_file), output, AGENCIES)


@token.command("mint")
def mint(
    agency: Agency = None,
    role: Annotated[str, typer.Option("--role", help="admin, operator or viewer.")] = "operator",
    sub: Annotated[str, typer.Option("--sub", help="Who the token is for.")] = "flux-etl",
    life: Annotated[int, typer.Option("--life", min=1, max=3600, help="Seconds until it expires.")] = 600,
    bind: Annotated[
        str | None,
        typer.Option(
            "--bind",
            metavar="FILE|proof",
            help="Bind it to the exact bytes of FILE (request_hash), or to the key of --proof-key (cnf.jkt).",
        ),
    ] = None,
    proof_key: ProofKey = None,
) -> None:
    """Mint a token with an agency's development key (FLUX_KEYS_DIR), and print it.

    Production tokens come from the agency's own identity provider; there is no key here that could sign one.
    """
    from flux_common.kernel.clock import SystemClock

    named = environment.agency_of(agency)
    key = environment.issuer_key(named, role, sub, life)
    by_proof = bind == BIND_BY_PROOF
    if by_proof and proof_key is None:
        raise Ended(Exit.USAGE, "--bind proof needs the key that proves", "add --proof-key FILE")
    value = _read(bind) if bind and not by_proof else None
    confined_to = environment.proof_key(proof_key) if by_proof and proof_key else None
    print_line(key.token(named, SystemClock().now(), value, confined_to))


@token.command("proof-key")
def proof_key(
    file: Annotated[Path, typer.Argument(help="Where the private key shall lie; nothing may lie there yet.")],
) -> None:
    """Make a key for proofs, and print its thumbprint: what a token has to name in cnf.jkt."""
    from flux_client.keys import create_key

    try:
        print_line(create_key(file).kid)
    except OSError as error:
        raise Ended(Exit.USAGE, f"{file}: {error.strerror}", "name a new file in a folder that is there") from None


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Ended(Exit.NOT_FOUND, f"{file}: {error.strerror}", "name the file with the request, or proof") from None


@dev.command("up")
def dev_up() -> None:
    """Start a development installation (needs the development kit)."""
    _flux_dev("up")


@dev.command("down")
def dev_down() -> None:
    """Stop what `dev up` started (needs the development kit)."""
    _flux_dev("down")


def _flux_dev(act: str) -> None:
    beside = Path(sys.executable).with_name("flux-dev")
    command = str(beside) if beside.is_file() else shutil.which("flux-dev")
    if command is None:
        hint = "it comes with a checkout of Flux: `make setup`; in production use the images and deploy/k8s"
        raise Ended(Exit.NOT_FOUND, "the development kit (flux-dev) is not installed", hint)
    status = subprocess.run([command, act], check=False).returncode  # noqa: S603 (the kit's own command, no input)
    if status:
        raise Ended(Exit.FAILED, f"flux-dev {act} ended with {status}", "its message stands above")


async def _explain(agency: str, position: Position) -> Row:
    from contextlib import AsyncExitStack

    from flux_client.explaining import Explainer
    from flux_client.reader import reading

    reader_settings = environment.reader_settings_if_any()
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(reading(reader_settings, agency)) if reader_settings else None
        ledgers = environment.ledger_settings()
        found = await Explainer(agency, environment.kafka_settings(), reader, ledgers).explain(position)
    if found["class"] == "unknown" and found["consumer"] not in ledgers:
        say(f"the ledger of {found['consumer']} would tell: set FLUX_{str(found['consumer']).upper()}_DSN")
    return found


def _topic_rows(report: TopicsReport) -> list[dict[str, Any]]:
    created = set(report.created)
    return [
        {"topic": name, "state": "created" if name in created else "present", "id": topic_id}
        for name, topic_id in report.ids.items()
    ]
