"""The command line that every service has: `serve`, `check-settings`, and the one-shot jobs that it offers.

Exit codes: 0 done, 1 failed, 2 settings or arguments wrong, 3 stopped but cut short. What a person should read goes to
standard output or, for faults, to standard error with a next step; logs go to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from faststream.kafka import KafkaBroker

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError
from flux_common.observability.logging import configure_logging, get_logger
from flux_common.runtime.service import Build, ExitCode, serve
from flux_common.settings import (
    InstallationSettings,
    LogSettings,
    SectionSet,
    ServiceSettings,
    explain,
    load,
    warnings_of,
)

S = TypeVar("S", bound=ServiceSettings)
M = TypeVar("M", bound=ServiceSettings)

log = get_logger(__name__)


class Migration(NamedTuple, Generic[M]):
    """How a service brings its part of the database up to date: settings of the owner's role, and the act."""

    settings: type[M]
    run: Callable[[M], Coroutine[Any, Any, None]]


class JobSettings(SectionSet):
    """What every job has; a job's own settings subclass this and add sections."""

    installation: InstallationSettings
    log: LogSettings


J = TypeVar("J", bound=JobSettings)


class Job(NamedTuple, Generic[J]):
    """A command that does one thing and ends (runtime.jobs): its name, what it does, its settings, and the act."""

    name: str
    about: str
    settings: type[J]
    run: Callable[[J], Coroutine[Any, Any, None]]


class Program(NamedTuple, Generic[S]):
    """A service as its `__main__` declares it."""

    name: str
    about: str
    settings: type[S]
    build: Build[S]
    broker: Callable[[S], KafkaBroker] | None = None
    migration: Migration[Any] | None = None
    jobs: Sequence[Job[Any]] = ()


def main(program: Program[Any], argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks of `program`, and return the exit code."""
    arguments = parser(program).parse_args(argv)
    try:
        return int(arguments.act(program))
    except FluxError as error:
        if error.code != Code.SETTINGS_INVALID:
            raise
        sys.stderr.write(f"{error.message}\nSee: python -m flux_{program.name} {arguments.explained_by}\n")
        return ExitCode.SETTINGS_INVALID


def parser(program: Program[Any]) -> argparse.ArgumentParser:
    """Return the parser of `program`'s command line."""
    top = argparse.ArgumentParser(
        prog=f"flux-{program.name}",
        description=program.about,
        epilog="Settings come from environment variables; check-settings lists them.",
    )
    top.set_defaults(explained_by="check-settings")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    about = "Run the service until SIGTERM or SIGINT; it waits for Kafka and PostgreSQL where they are not there yet."
    commands.add_parser("serve", help="run the service", description=about).set_defaults(act=_serve)
    about = "Print every setting with its variable, type, default and meaning, and every fault of the present ones."
    commands.add_parser("check-settings", help="explain and check the settings", description=about).set_defaults(
        act=_check_settings
    )
    if program.migration is not None:
        about = "Bring this service's part of the database up to date; forward only, safe to repeat."
        commands.add_parser("migrate", help="migrate the database", description=about).set_defaults(act=_migrate)
    for job in program.jobs:
        command = commands.add_parser(
            job.name,
            help=job.about,
            description=job.about,
            epilog=explain(job.settings),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(act=partial(_run_job, job), explained_by=f"{job.name} --help")
    return top


def _serve(program: Program[S]) -> ExitCode:
    settings = load(program.settings)
    broker = program.broker(settings) if program.broker else None
    return serve(program.name, settings, program.build, broker)


def _check_settings(program: Program[S]) -> ExitCode:
    sys.stdout.write(explain(program.settings) + "\n\n")
    sys.stdout.flush()
    settings = load(program.settings)
    for line in warnings_of(settings):
        sys.stderr.write(f"warning: {line}\n")
    sys.stdout.write(f"All settings are valid, for {settings.installation.environment} (FLUX_ENVIRONMENT).\n")
    return ExitCode.OK


def _migrate(program: Program[Any]) -> ExitCode:
    migration = program.migration
    assert migration is not None
    settings = load(migration.settings)
    configure_logging(program.name, settings.log)
    try:
        asyncio.run(migration.run(settings))
    except Exception as error:
        log.critical("migration failed", exc_info=error)
        return ExitCode.FAILED
    return ExitCode.OK


def _run_job(job: Job[Any], program: Program[Any]) -> ExitCode:
    settings = load(job.settings)
    configure_logging(program.name, settings.log)
    try:
        asyncio.run(job.run(settings))
    except Exception as error:
        log.critical("the job failed", job=job.name, exc_info=error)
        return ExitCode.FAILED
    return ExitCode.OK
