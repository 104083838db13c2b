"""The command `flux-etl`: its tree, and how every error becomes a message, a next step and an exit status.

What a command needs is imported when it runs, so that help and completion answer at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flux_client.cli import agencies, audit, doctoring, environment, mending, operating, runs
from flux_client.cli.exits import MEANINGS, Ended, Exit
from flux_client.cli.output import say

HELP = """Submit runs to Flux, watch and command them, and prove what happened.

Settings are environment variables (FLUX_KAFKA_BOOTSTRAP, FLUX_AGENCY, FLUX_READER_DSN, ...); in a development
installation .flux/dev.env, looked for from here upward, fills in what is not set.
"""
EPILOG = "Exit status:\n\n\b\n" + MEANINGS

app = typer.Typer(
    name="flux-etl", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback(help=HELP, epilog=EPILOG)
def root(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what the client does to standard error.")
    ] = False,
) -> None:
    """Run before every command."""
    if os.environ.get("_FLUX_ETL_COMPLETE"):
        return
    environment.adopt_dev_env(os.environ, Path.cwd())
    environment.log_level = "info" if verbose else "error"


app.command("submit")(runs.submit)
app.add_typer(runs.app, name="runs")
app.command("explain")(operating.explain)
app.add_typer(audit.checkpoints, name="checkpoints")
app.add_typer(audit.app, name="audit")
app.command("lag")(operating.lag)
app.add_typer(mending.lanes, name="lanes")
app.add_typer(mending.outbox, name="outbox")
app.command("doctor")(doctoring.doctor)
app.add_typer(operating.topics, name="topics")
operating.agencies.command("apply")(agencies.apply)
operating.agencies.command("add")(agencies.add)
app.add_typer(operating.agencies, name="agencies")
app.add_typer(operating.token, name="token")
app.add_typer(operating.dev, name="dev")


def run(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments ask and return the exit status."""
    from flux_common.kernel.errors import FluxError

    try:
        app(args=None if arguments is None else list(arguments), prog_name="flux-etl")
    except SystemExit as ended:
        return int(ended.code or 0)
    except KeyboardInterrupt:
        say("flux-etl: interrupted")
        return Exit.INTERRUPTED
    except Ended as ended:
        return _told(ended)
    except FluxError as error:
        return _told(judged(error))
    return Exit.OK


def judged(error: Exception) -> Ended:
    """Return how an error of Flux ends the command."""
    from flux_common.kernel.codes import meaning_of
    from flux_common.kernel.errors import FluxError, Unavailable, ValidationFailed

    assert isinstance(error, FluxError)
    code, said = error.code, f"{error.message} ({error.code})"
    if code == "TOPIC_MISSING":
        return Ended(Exit.NOT_FOUND, said, "is the agency registered here? `flux-etl topics apply` creates its topics")
    if isinstance(error, Unavailable):
        return Ended(Exit.UNAVAILABLE, said, "is it running, and is the address right? then try again")
    if isinstance(error, ValidationFailed):
        places = "".join(f"\n  {pointer or '/'}: {keyword}" for pointer, keyword in error.violations)
        return Ended(Exit.USAGE, said + places, meaning_of(code))
    if code == "SETTINGS_INVALID":
        return Ended(Exit.USAGE, error.message, environment.UP_HINT)
    return Ended(Exit.FAILED, said, meaning_of(code))


def _told(ended: Ended) -> int:
    if ended.message:
        say(f"flux-etl: {ended.message}")
    if ended.next_step:
        say(f"  next: {ended.next_step}")
    return ended.status
