"""`flux-etl agencies apply | add`: what the brokers hold about agencies and services, and how an agency comes to be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flux_client.cli import environment
from flux_client.cli.exits import Ended, Exit
from flux_client.cli.options import Format, Output
from flux_client.cli.output import say, show

if TYPE_CHECKING:
    from flux_common.auth import Registry
    from flux_common.contracts.access import Principal
    from flux_common.kafka.logins import Difference
    from flux_common.settings import KafkaSettings

CHANGES = ("kind", "login", "change", "what")
ADMIN_HINT = (
    "log in as an administrator (FLUX_KAFKA_SASL_USERNAME), on brokers with an authorizer; docs/operations.md, Logins"
)
AgenciesFile = Annotated[Path | None, typer.Option("--agencies", help="The registry. Default: FLUX_AGENCIES_FILE.")]


def apply(
    agencies_file: AgenciesFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; list what would be (exit status 9 if there is anything).")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove ACLs of Flux's logins that the code does not know.")
    ] = False,
    passwords: Annotated[
        Path | None,
        typer.Option(
            "--passwords", exists=True, file_okay=False,
            help="A folder with one file for each login whose password is to be set, named like the login.",
        ),
    ] = None,
    development: Annotated[bool, typer.Option("--development", help="One replica of each new topic.")] = False,
    replication: Annotated[
        int | None, typer.Option("--replication", min=1, help="Replicas of new topics. Default: 3.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Give the brokers what the registry and the code say: missing topics, ACLs and quotas of every agency and service.

    As an administrator of the brokers. It may be repeated: a second time there is nothing to do. ACLs of Flux's logins that
    the code does not know are listed as unknown (exit status 9), and removed with --prune alone.
    """
    from flux_common.auth import load_registry
    from flux_common.contracts.access import principals
    from flux_common.kafka.admin import Forbidden

    registry, settings = load_registry(environment.agencies_file(agencies_file)), environment.kafka_settings()
    everybody = principals({name: agency.quota for name, agency in registry.agencies.items()})
    given = _passwords(passwords, everybody) if passwords else {}
    try:
        rows = asyncio.run(_rows(settings, registry, everybody, given, prune=prune))
        if not dry_run:
            asyncio.run(_apply(settings, registry, everybody, given, prune, development, replication))
    except Forbidden as problem:
        raise Ended(Exit.REFUSED, f"{problem.message}: {settings.sasl_username or 'nobody'}", ADMIN_HINT) from None
    show(rows, output, CHANGES)
    _end(rows, dry_run=dry_run)


def add(
    agency_id: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits and hyphens.")],
    name: Annotated[str, typer.Option("--name", help="What people call it.")],
    issuer: Annotated[str, typer.Option("--issuer", help="The `iss` of its tokens.")],
    jwks: Annotated[str, typer.Option("--jwks", help="The issuer's key set, as a path from here.")],
    source: Annotated[list[str], typer.Option("--source", help="A prefix that it may read; ends with /. Repeatable.")],
    destination: Annotated[
        list[str], typer.Option("--destination", help="A prefix that it may write; ends with /. Repeatable.")
    ],
    algorithm: Annotated[
        list[str] | None, typer.Option("--algorithm", help="What tokens are signed with. Default: the keys' own.")
    ] = None,
    audience: Annotated[str, typer.Option("--audience", help="The `aud` of its tokens.")] = "flux",
    agencies_file: AgenciesFile = None,
    manifests: Annotated[
        Path | None, typer.Option("--manifests", file_okay=False, help="Write its Kubernetes manifests here, too.")
    ] = None,
    cluster: Annotated[str, typer.Option("--cluster", help="The Kafka resource of the manifests.")] = "flux",
) -> None:
    """Register an agency: write its entry into the registry, which is created if it is not there.

    Nothing is written that a service would refuse. The entry has the registry's defaults; edit it for windows, quota, roles.
    """
    from flux_client.cli.checking import faulty
    from flux_client.registering import add_agency
    from flux_common.auth import ConfigurationRefused, load_registry
    from flux_common.kernel.clock import SystemClock

    environment.agency_of(agency_id)
    if manifests:
        _check_name(agency_id)
    path = _registry_path(agencies_file)
    named, own = _key_set(jwks, path.parent)
    entry = {
        "id": agency_id,
        "name": name,
        "issuers": {issuer: {"jwks": named, "algorithms": algorithm or own, "audience": audience}},
        "source_prefixes": source,
        "destination_prefixes": destination,
    }
    try:
        kept = add_agency(path, entry, SystemClock().now())
    except ConfigurationRefused as refused:
        raise faulty(path, refused.faults, "nothing was written: correct what was given, or the registry") from None
    if not kept:
        say(f"{path} could not be added to as text: it was written anew, and its comments are gone")
    written = _write_manifests(manifests, agency_id, load_registry(path), cluster) if manifests else []
    show({"agency": agency_id, "registry": str(path), "manifests": written}, Format.TABLE)
    say("next: `flux-etl agencies apply` makes its topics, ACLs and quota; with Strimzi, apply the manifests instead")


async def _rows(
    settings: KafkaSettings,
    registry: Registry,
    everybody: Iterable[Principal],
    passwords: dict[str, str],
    *,
    prune: bool,
) -> list[dict[str, Any]]:
    """Return what is to be done, in the order in which it is done."""
    from flux_common.kafka.admin import missing_topics
    from flux_common.kafka.logins import difference

    found = await difference(settings, tuple(everybody))
    topics = await missing_topics(settings, sorted(registry.agencies))
    rows = [_row("topic", None, "create", name) for name in topics]
    rows += [_row("acl", rule.login, "add", rule) for rule in found.missing]
    rows += [_row("quota", login, "set", quota) for login, quota in found.quotas.items()]
    rows += [_row("acl", rule.login, "remove" if prune else "unknown", rule) for rule in found.unknown]
    rows += [_row("password", login, "set", "from its file") for login in passwords]
    return rows + [_row("password", login, "none", "it cannot log in") for login in _locked_out(found, passwords)]


async def _apply(
    settings: KafkaSettings,
    registry: Registry,
    everybody: tuple[Principal, ...],
    passwords: dict[str, str],
    prune: bool,
    development: bool,
    replication: int | None,
) -> None:
    from flux_common.kafka.admin import create_topics
    from flux_common.kafka.logins import apply, difference, set_passwords

    await create_topics(settings, sorted(registry.agencies), development=development, replication=replication)
    await apply(settings, await difference(settings, everybody), prune=prune)
    await set_passwords(settings, passwords)


def _end(rows: list[dict[str, Any]], *, dry_run: bool) -> None:
    left = [row for row in rows if dry_run or row["change"] == "unknown"]
    if any(row["change"] == "none" for row in rows):
        say("some logins have no password: --passwords DIR sets them (with Strimzi, the user operator does)")
    if dry_run and any(row["change"] != "none" for row in rows):
        raise Ended(Exit.FAULTS, "the brokers differ from the registry and the code", "the same without --dry-run")
    if left and not dry_run:
        raise Ended(Exit.FAULTS, "there are ACLs that the code does not know", "look at them; --prune removes them")


def _row(kind: str, login: str | None, change: str, what: object) -> dict[str, Any]:
    return {"kind": kind, "login": login, "change": change, "what": str(what)}


def _locked_out(found: Difference, passwords: dict[str, str]) -> list[str]:
    return [login for login in found.without_password if login not in passwords]


def _passwords(folder: Path, everybody: Iterable[Principal]) -> dict[str, str]:
    """Return the passwords of a folder by login; what is no login's is refused before anything is done."""
    from flux_common.settings import read_secret

    logins = {one.name for one in everybody}
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    strange = [path.name for path in files if path.name not in logins]
    if strange:
        hint = f"a file is named like a login: {', '.join(sorted(logins))}"
        raise Ended(Exit.USAGE, f"{folder} holds files of no login: {', '.join(strange)}", hint)
    try:
        return {path.name: read_secret(path).get_secret_value() for path in files}
    except (OSError, ValueError) as problem:
        raise Ended(Exit.USAGE, str(problem), "write the password into the file, readable by you") from None


def _registry_path(given: Path | None) -> Path:
    """Return the registry's path; one that is named may be new."""
    return given if given is not None and not given.exists() else environment.agencies_file(given)


def _key_set(jwks: str, folder: Path) -> tuple[str, list[str]]:
    """Return how the registry names a key set, and the algorithms of its keys as far as it is a file here."""
    import json

    if "://" in jwks:
        return jwks, []
    path = Path(jwks).resolve()
    try:
        keys = json.loads(path.read_bytes())["keys"]
        algorithms = sorted({str(key["alg"]) for key in keys})
    except (OSError, ValueError, KeyError, TypeError):
        raise Ended(Exit.NOT_FOUND, f"{jwks} is no key set", "name a JWKS file whose keys say their `alg`") from None
    inside = path.is_relative_to(folder.resolve())
    return str(path.relative_to(folder.resolve()) if inside else path), algorithms


def _write_manifests(folder: Path, agency_id: str, registry: Registry, cluster: str) -> list[str]:
    """Write the agency's file, and the file of the services' logins, which name every agency."""
    from flux_client.strimzi import Cluster, agency_manifests, service_users

    where, quota = Cluster(cluster), registry.agencies[agency_id].quota
    files = {
        f"agency-{agency_id}.yaml": agency_manifests(agency_id, where, quota),
        "services.yaml": service_users(registry.agencies, where),
    }
    return [str(_write(folder / name, made)) for name, made in files.items()]


def _check_name(agency_id: str) -> None:
    from flux_client.strimzi import Cluster, agency_manifests

    try:
        agency_manifests(agency_id, Cluster())
    except ValueError as problem:
        raise Ended(Exit.USAGE, str(problem), "nothing was written; choose another id") from None


def _write(path: Path, manifests: list[dict[str, Any]]) -> Path:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    head = "# Written by `flux-etl agencies add` from the catalogue; written again when an agency is added.\n"
    path.write_text(head + yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True))
    return path
