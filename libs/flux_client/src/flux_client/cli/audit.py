"""`flux-etl audit …` and `flux-etl checkpoints …`: what happened, and the proof of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flux_client.cli import environment
from flux_client.cli.exits import Ended, Exit
from flux_client.cli.options import Agency, Format, Output, Run
from flux_client.cli.output import say, show

if TYPE_CHECKING:
    from flux_client.reader import Row

ENTRIES = ("seq", "ts", "type", "outcome", "code", "run_id", "event_id")
CHAINS = ("number", "slices", "head", "fault")

app = typer.Typer(no_args_is_help=True, help="Read the audit log, fetch receipts, verify them offline.")
checkpoints = typer.Typer(no_args_is_help=True, help="Check the durable progress of runs.")


@app.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(help="A receipt (JSON file), or the folder of an export bundle.")],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="A verifier key that you trust (again for more). Default: FLUX_AUDIT_VERIFIER_KEY."),
    ] = None,
    known_head: Annotated[
        list[Path] | None, typer.Option("--known-head", exists=True, help="A signed head kept from earlier.")
    ] = None,
    agency: Agency = None,
    output: Output = Format.TABLE,
) -> None:
    """Verify a receipt or an export bundle, offline.

    Exit status 0: proven. 10 to 17: in which way it is not (see `flux-etl --help`). It needs no server, and trusts
    nothing but the keys given; the stand-alone `verifier.py` does the same without Flux.
    """
    from flux_client.verifier import VerificationFailed

    trust = environment.trust_in(environment.agency_of(agency), key or [], known_head or [])
    if not trust.keys:
        raise Ended(Exit.USAGE, "there is no key to trust", "use --key, or set FLUX_AUDIT_VERIFIER_KEY")
    try:
        proven = _proven(path, trust)
    except VerificationFailed as failed:
        show({"verified": False, "failure": failed.failure.name.lower(), "message": str(failed)}, output)
        raise Ended(failed.failure, f"{path} is not proven: {failed}", "do not rely on what it says") from None
    except OSError as error:
        raise Ended(Exit.NOT_FOUND, f"{error.filename}: {error.strerror}", "name a receipt or a bundle") from None
    show({"verified": True, **proven}, output)


@app.command("receipt")
def receipt(
    event_id: Annotated[str, typer.Argument(help="The `event_id` of a decision or of a run's end.")],
    save: Annotated[Path | None, typer.Option("--save", help="Write it to this file, for `audit verify`.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for it.")] = 10.0,
    agency: Agency = None,
    output: Output = Format.JSON,
) -> None:
    """Fetch the receipt of an event from the agency's receipts topic."""
    found = asyncio.run(_find_receipt(environment.agency_of(agency), event_id, timeout))
    if save is None:
        show(found, output)
        return
    save.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    say(f"written to {save}; prove it: flux-etl audit verify {save}")


@app.command("ls")
def list_entries(
    before: Annotated[int | None, typer.Option("--before", min=0, help="Only entries before this leaf.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, newest first.")] = 50,
    agency: Agency = None,
    output: Output = Format.TABLE,
) -> None:
    """List the entries of the audit log, newest first."""
    from flux_client.reader import reading

    settings, named = environment.reader_settings(), environment.agency_of(agency)

    async def read() -> list[Row]:
        async with reading(settings, named) as reader:
            return await reader.audit_entries(before, limit)

    show([_line(row) for row in asyncio.run(read())], output, ENTRIES)


@app.command("show")
def show_entry(
    which: Annotated[str, typer.Argument(metavar="SEQ|EVENT", help="A leaf's index, or the id of an event or fact.")],
    agency: Agency = None,
    output: Output = Format.TABLE,
) -> None:
    """Show sealed entries whole."""
    from flux_client.reader import reading

    settings, named = environment.reader_settings(), environment.agency_of(agency)

    async def read() -> list[Row]:
        async with reading(settings, named) as reader:
            return await reader.audit_entries_about(which)

    rows = asyncio.run(read())
    if not rows:
        raise Ended(Exit.NOT_FOUND, f"this agency's log has no entry {which}", "see `flux-etl audit ls`")
    if output is Format.TABLE:
        for row in rows:
            show(row, output)
    else:
        show(rows, output)


@checkpoints.command("verify")
def verify_checkpoints(run: Run, agency: Agency = None, output: Output = Format.TABLE) -> None:
    """Recompute the record chain of every partition of a run; exit status 9 if one does not hold."""
    from flux_client.cli.asking import found
    from flux_client.reader import reading

    settings, named = environment.reader_settings(), environment.agency_of(agency)

    async def read() -> list[Row]:
        async with reading(settings, named) as reader:
            return await reader.chains(await found(reader, run))

    chains = asyncio.run(read())
    show(chains, output, CHAINS)
    faulty = [str(row["number"]) for row in chains if row["fault"] is not None]
    if faulty:
        hint = "the run must not be resumed; see the runbook for CHAIN_CORRUPT"
        raise Ended(Exit.FAULTS, f"the chain does not hold in partitions {', '.join(faulty)}", hint)


def _proven(path: Path, trust: Any) -> dict[str, Any]:
    from flux_client.verifier import verify_bundle, verify_receipt

    if path.is_dir():
        head = verify_bundle(path, trust)
        return {"origin": head.origin, "tree_size": head.size, "root": head.root.hex()}
    return {"entry": verify_receipt(path.read_bytes(), trust)}


async def _find_receipt(agency: str, event_id: str, timeout_s: float) -> dict[str, Any]:
    from flux_client.receipts import ReceiptMissing, ReceiptReader
    from flux_common.kernel.clock import SystemClock

    receipts = ReceiptReader(agency, environment.kafka_settings(), SystemClock(), "beginning")
    try:
        return await receipts.find(event_id, timeout_s)
    except ReceiptMissing as missing:
        raise Ended(Exit.TIMED_OUT, str(missing), "is the audit service running? `flux-etl lag` shows") from None
    finally:
        await receipts.close()


def _line(row: Row) -> dict[str, Any]:
    """Return an entry's members in one level: what a list shows."""
    entry = row["entry"]
    named = {name: entry.get(name) for name in ("ts", "type", "outcome", "code")}
    refs = {name: entry["refs"].get(name) for name in ("run_id", "request_id")}
    return {"seq": row["seq"], **named, **refs, "event_id": entry["refs"].get("event_id", row["event_id"])}
