"""The command `flux-dev`: a real Kafka, a real PostgreSQL and the four services of Flux on this machine, up and down.

Exit status: 0 for done (also when there was nothing to do), 1 for an error, with one clear message on stderr.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console

from flux_devkit import background
from flux_devkit.errors import DevkitError
from flux_devkit.home import Home, locate

LOGS = ("stack", "kafka", "postgres", "maven")

app = typer.Typer(
    name="flux-dev",
    help="A whole Flux for development, on a real Kafka and a real PostgreSQL: no Docker needed. All is below .flux/.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; a DevkitError is a message and exit status 1, not a traceback."""
    try:
        app()
    except DevkitError as error:
        typer.echo(f"flux-dev: {error}", err=True)
        sys.exit(1)


@app.command()
def up() -> None:
    """Start Kafka, PostgreSQL and the four services in the background and write .flux/dev.env.

    Fine if they are up already. Given servers (FLUX_KAFKA_BOOTSTRAP, FLUX_POSTGRES_DSN) are used as they are; with a
    Docker engine they run in containers; else embedded (FLUX_STACK=embedded or containers settles it).
    FLUX_UP=servers leaves the services out.
    """
    home = locate()
    started = background.up(home, say=out.print)
    out.print("up" if started else "already up")
    _print_variables(home)


@app.command()
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete their data (topics, databases).")] = False,
) -> None:
    """Stop exactly what `up` started. Data stay for the next `up`."""
    home = locate()
    was_up = background.down(home)
    out.print("down" if was_up else "was not up")
    if wipe:
        _wipe(home)


@app.command()
def status() -> None:
    """Show whether the stack is up, and where. Exit status 3 if it is not."""
    home = locate()
    seen = background.status(home)
    if seen.pid is None:
        out.print("not up; call: flux-dev up")
        raise typer.Exit(3)
    out.print(f"{'up' if seen.running else 'starting'} (process {seen.pid})")
    if seen.running:
        _print_variables(home)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="stack, kafka, postgres, maven, a service, or all.")] = "all",
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show the servers' logs."""
    home = locate()
    files = sorted(home.logs.glob("*.log" if name == "all" else f"{name}.log"))
    if not files:
        raise DevkitError(f"no log of that name in {home.logs} (known: {', '.join(LOGS)})")
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    try:
        raise typer.Exit(subprocess.run(command, check=False).returncode)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def oracle(
    database: Annotated[str, typer.Option("--database", help="The installation's database.")] = "flux",
    topic_prefix: Annotated[str, typer.Option("--topic-prefix", help="What its topics begin with.")] = "",
    agency: Annotated[
        list[str] | None, typer.Option("--agency", help="Each of its agencies; default: the examples.")
    ] = None,
    settled: Annotated[bool, typer.Option("--settled", help="All work is done: nothing may wait.")] = False,
    files: Annotated[bool, typer.Option("--files/--no-files", help="Look into file:// destinations.")] = True,
) -> None:
    """Hold an installation on the servers that are up against I1 to I9. Exit status 1 if it breaks one."""
    from flux_devkit.oracle import examine, installation_at

    found = installation_at(locate(), database, topic_prefix, agency or [])
    report = examine(found, settled=settled, quiescent=settled, files=files)
    out.print(report.text(), markup=False)
    raise typer.Exit(0 if report.clean else 1)


def _print_variables(home: Home) -> None:
    """Names and values without passwords, and how to use them."""
    for name, value in home.read_dev_env().items():
        out.print(f"  {name}={hide_password(value)}")
    out.print(f"use them: set -a; . {home.dev_env}; set +a")


def hide_password(value: str) -> str:
    """A DSN without its password; any other value as it is."""
    head, colon, rest = value.partition("://")
    login, at, place = rest.rpartition("@")
    if not colon or not at or ":" not in login:
        return value
    return f"{head}://{login.partition(':')[0]}:***@{place}"


def _wipe(home: Home) -> None:
    from flux_devkit.postgres import EmbeddedPostgres

    EmbeddedPostgres(home.data / "postgres").remove()
    shutil.rmtree(home.data / "kafka", ignore_errors=True)
    out.print(f"wiped {home.data}")


if __name__ == "__main__":
    main()
