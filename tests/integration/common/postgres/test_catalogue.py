"""The rules of trust.md that a database can be asked about: every one holds, and every one is seen to be broken by a mutant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from flux_common.postgres import catalogue
from flux_common.postgres.migrations import LOGIN_ROLES

SERVICES = ("flux_ingest", "flux_checkpoint", "flux_audit")
# A service's own machinery: reachable by its role alone, without policies.
MACHINERY = {
    f"{service}.{table}"
    for service in SERVICES
    for table in ("lanes", "ledger", "ledger_exceptions", "dead_letters", "outbox", "outbox_parked", "relay_leases")
} | {"flux_checkpoint.dispatcher_leases", "flux_checkpoint.agenda", "flux_checkpoint.agencies"}
SHARED_OF = {
    "flux.runs": "flux_checkpoint",
    "flux.checkpoints": "flux_checkpoint",
    "flux.checkpoint_events": "flux_checkpoint",
    "flux.checkpoint_hashes": "flux_checkpoint",
    "flux.audit_log": "flux_audit",
}
BY_LOGIN = "(agency_id = ( SELECT flux.reader_agency() AS reader_agency))"
FOR_ALL = {"flux_meta.migrations"}  # which services read before they start
WRITING = {"INSERT", "UPDATE", "DELETE"}
KINDS = ("schemas", "relations", "columns", "constraints", "indexes", "policies", "functions", "grants", "roles")


@dataclass(frozen=True)
class Seen:
    """What the catalogues say."""

    rows: dict[str, list[dict[str, Any]]]

    def __getattr__(self, kind: str) -> list[dict[str, Any]]:
        return self.rows[kind]

    @property
    def tables(self) -> list[dict[str, Any]]:
        return [row for row in self.relations if row["kind"] in "rpvm"]

    @property
    def tenant_tables(self) -> set[str]:
        """Tables with an agency that are not machinery."""
        return {row["name"].rsplit(".", 1)[0] for row in self.columns if row["name"].endswith(".agency_id")} - MACHINERY


async def look(admin: Any) -> Seen:
    """Read the catalogues."""
    return Seen(await catalogue.look(admin, KINDS))


# The rules. Each yields what breaks it; its docstring is the remedy.


def uncommented(seen: Seen) -> Iterator[str]:
    """Say what it is for: COMMENT ON."""
    yield from (row["name"] for row in [*seen.tables, *seen.functions] if not row["comment"])


def unsecured(seen: Seen) -> Iterator[str]:
    """ENABLE and FORCE row-level security, or name the table among the machinery here and grant it to its role alone."""
    yield from (
        row["name"] for row in seen.tables if row["name"] in seen.tenant_tables and not (row["rls"] and row["forced"])
    )


def loose_policies(seen: Seen) -> Iterator[str]:
    """A policy compares agency_id with the transaction's setting, for reading and for writing, for one role.

    One that goes by the login comes on top, and is restrictive.
    """
    setting = {"flux_reader": "flux.current_agency_id'"} | dict.fromkeys(SERVICES, "flux.current_agency_ids'")
    for row in seen.policies:
        if not row["permissive"]:
            if (row["using"], row["roles"]) != (BY_LOGIN, ["flux_reader"]):
                yield row["name"]
            continue
        texts = [row["using"], row["checked"]] if row["command"] == "*" else [row["using"] or row["checked"]]
        one_role = len(row["roles"]) == 1 and row["roles"][0] in setting
        exact = r"\(agency_id = (ANY \()?\(+ ?SELECT (string_to_array|NULLIF)\(current_setting\('"
        if not one_role or not all(
            text and re.match(exact, text) and setting[row["roles"][0]] in text and " OR " not in text for text in texts
        ):
            yield row["name"]


def unreached(seen: Seen) -> Iterator[str]:
    """Every table with an agency has a policy for its service; the five of schema `flux` have one for readers too."""
    found = {(row["name"].rsplit(".", 1)[0], row["roles"][0]) for row in seen.policies if row["permissive"]}
    for table in sorted(seen.tenant_tables):
        wanted = [SHARED_OF.get(table, table.split(".")[0])] + ["flux_reader"] * (table in SHARED_OF)
        yield from (f"{table} for {role}" for role in wanted if (table, role) not in found)


def chosen_agencies(seen: Seen) -> Iterator[str]:
    """What readers may read has a restrictive policy on who logged in: a setting can be chosen, a login cannot."""
    found = {row["name"].rsplit(".", 1)[0] for row in seen.policies if not row["permissive"]}
    read = {row["name"] for row in seen.grants if row["grantee"] == "flux_reader" and row["privilege"] == "SELECT"}
    yield from sorted((read & seen.tenant_tables) - found)


def keys_that_tell(seen: Seen) -> Iterator[str]:
    """Primary, unique and foreign keys begin with agency_id: else a taken key tells one agency of another's."""
    for row in seen.constraints:
        key = row["name"].rsplit(".", 1)[0] in seen.tenant_tables and row["kind"] in "puf"
        if key and not re.match(r"(PRIMARY KEY|UNIQUE|FOREIGN KEY) \(agency_id\b", row["definition"]):
            yield row["name"]
    for row in seen.indexes:
        key = row["relation"] in seen.tenant_tables and row["definition"].startswith("CREATE UNIQUE INDEX")
        if key and not re.search(r"USING \w+ \(agency_id\b", row["definition"]):
            yield row["name"]


def nameless_agencies(seen: Seen) -> Iterator[str]:
    """agency_id is NOT NULL, and a CHECK refuses the empty one."""
    checks = " ".join(row["name"] + row["definition"] for row in seen.constraints if row["kind"] == "c")
    for row in seen.columns:
        table, _, column = row["name"].rpartition(".")
        checked = row["required"] and re.search(rf"{re.escape(table)}\.\w+CHECK \(\(agency_id (<>|~)", checks)
        if column == "agency_id" and table in seen.tenant_tables and not checked:
            yield row["name"]


def loose_functions(seen: Seen) -> Iterator[str]:
    """A function pins its search_path, and runs as its caller; a definer needs a reason and a rule of its own here."""
    for row in seen.functions:
        if row["definer"] or not any(s.startswith("search_path=") for s in row["settings"] or []):
            yield row["name"]


def public_grants(seen: Seen) -> Iterator[str]:
    """REVOKE … FROM PUBLIC; grant to the role that needs it."""
    yield from (f"{row['name']}: {row['privilege']}" for row in seen.grants if row["grantee"] == "PUBLIC")


def strangers(seen: Seen) -> Iterator[str]:
    """A service's schema is its role's; a shared table is written by its owner service and read by it and by readers."""
    for row in seen.grants:
        name, grantee = row["name"], row["grantee"]
        if row["kind"] not in ("relation", "column", "schema"):
            continue
        table = re.sub(r"^(\w+\.\w+)\.\w+$", r"\1", name)
        schema = table.split(".")[0]
        if schema in ("flux", "flux_meta") and row["kind"] == "schema":
            fine = grantee in (*SERVICES, "flux_reader") and row["privilege"] == "USAGE"
        elif table in SHARED_OF or table in FOR_ALL:
            reads = row["privilege"] == "SELECT" and (grantee == "flux_reader" or table in FOR_ALL)
            fine = reads or (grantee == SHARED_OF.get(table) and row["privilege"] in {"SELECT"} | WRITING)
        else:
            fine = grantee == schema and row["privilege"] in {"SELECT", "USAGE"} | WRITING
        if not fine:
            yield f"{name}: {row['privilege']} to {grantee}"


def editable_audit(seen: Seen) -> Iterator[str]:
    """The audit log is written once: SELECT and INSERT, nothing else, for nobody but its owner."""
    for row in seen.grants:
        if re.match(r"flux\.audit_log\b", row["name"]) and row["privilege"] not in ("SELECT", "INSERT"):
            yield f"{row['privilege']} to {row['grantee']}"


def mighty_roles(seen: Seen) -> Iterator[str]:
    """No role of Flux is superuser, BYPASSRLS or the like; only flux_migrate may become the owner, who cannot log in."""
    for row in seen.roles:
        reader = row["name"].startswith("flux_reader_")
        member_of = {"flux_migrate": ["flux_owner"]}.get(row["name"], ["flux_reader"] if reader else None)
        logs_in = reader or row["name"] in LOGIN_ROLES
        if row["mighty"] or row["login"] != logs_in or row["member_of"] != member_of:
            yield row["name"]


def patient_roles(seen: Seen) -> Iterator[str]:
    """Every service role has the time-outs of semantics.md: a stopped process must not hold its successor up."""
    wanted = {
        "idle_in_transaction_session_timeout=5s", "lock_timeout=5s", "statement_timeout=30s", "tcp_user_timeout=10s",
        "synchronous_commit=on",
    }  # fmt: skip
    for row in seen.roles:
        waits = row["name"] in SERVICES or row["name"].startswith("flux_reader")
        if waits and not wanted <= set(row["settings"] or []):
            yield row["name"]


def greedy_readers(seen: Seen) -> Iterator[str]:
    """Who only reads has bounds that its holder cannot move: on disk for all, on connections for an agency's own."""
    for row in seen.roles:
        bounded = "temp_file_limit=256MB" in (row["settings"] or []) and row["connections"] != "unlimited"
        if row["name"].startswith("flux_reader") and not bounded:
            yield row["name"]


def owners(seen: Seen) -> Iterator[str]:
    """Everything belongs to flux_owner."""
    everything = [*seen.schemas, *seen.relations, *seen.functions]
    yield from (row["name"] for row in everything if row["owner"] != "flux_owner")


def views_of_the_owner(seen: Seen) -> Iterator[str]:
    """A view is made WITH (security_invoker = true), or it shows what its owner may see."""
    yield from (
        row["name"]
        for row in seen.relations
        if row["kind"] in "vm" and "security_invoker=true" not in (row["options"] or [])
    )


Rule = Callable[[Seen], Iterator[str]]
MUTANTS: list[tuple[Rule, str]] = [
    (uncommented, "COMMENT ON TABLE flux.runs IS NULL"),
    (uncommented, "COMMENT ON FUNCTION flux.run_summary IS NULL"),
    (unsecured, "ALTER TABLE flux.runs NO FORCE ROW LEVEL SECURITY"),
    (unsecured, "ALTER TABLE flux_audit.nodes DISABLE ROW LEVEL SECURITY"),
    (unsecured, "CREATE TABLE flux_ingest.more (agency_id text)"),
    (loose_policies, "ALTER POLICY service_batch ON flux.runs USING (true)"),
    (loose_policies, "ALTER POLICY service_batch ON flux.runs WITH CHECK (true)"),
    (loose_policies, "ALTER POLICY reader_agency ON flux.runs TO PUBLIC"),
    (loose_policies, "CREATE POLICY more ON flux.runs TO flux_reader USING (true)"),
    (loose_policies, "ALTER POLICY reader_login ON flux.runs USING (true)"),
    (loose_policies, "ALTER POLICY reader_login ON flux.runs TO flux_checkpoint"),
    (unreached, "DROP POLICY service_batch ON flux.audit_log"),
    (unreached, "DROP POLICY reader_agency ON flux.runs"),
    (chosen_agencies, "DROP POLICY reader_login ON flux.audit_log"),
    (chosen_agencies, "GRANT SELECT ON flux_audit.nodes TO flux_reader"),
    (keys_that_tell, "ALTER TABLE flux.runs ADD UNIQUE (request_id)"),
    (keys_that_tell, "CREATE UNIQUE INDEX more ON flux.checkpoint_hashes (hash)"),
    (nameless_agencies, "ALTER TABLE flux_ingest.requests DROP CONSTRAINT requests_agency_id_check"),
    (loose_functions, "ALTER FUNCTION flux.run_summary RESET search_path"),
    (loose_functions, "ALTER FUNCTION flux.run_summary SECURITY DEFINER"),
    (public_grants, "GRANT EXECUTE ON FUNCTION flux.run_summary TO PUBLIC"),
    (public_grants, "GRANT SELECT (state) ON flux.runs TO PUBLIC"),
    (public_grants, "CREATE FUNCTION flux.more() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    (strangers, "GRANT SELECT ON flux_ingest.lanes TO flux_audit"),
    (strangers, "GRANT USAGE ON SCHEMA flux_ingest TO flux_audit"),
    (strangers, "GRANT UPDATE ON flux.runs TO flux_ingest"),
    (strangers, "GRANT INSERT ON flux.runs TO flux_reader"),
    (strangers, "GRANT TRUNCATE ON flux_ingest.outbox TO flux_ingest"),
    (strangers, "GRANT UPDATE (code) ON flux.runs TO flux_audit"),
    (editable_audit, "GRANT UPDATE ON flux.audit_log TO flux_audit"),
    (editable_audit, "GRANT DELETE ON flux.audit_log TO flux_migrate"),
    (editable_audit, "GRANT UPDATE (entry) ON flux.audit_log TO flux_audit"),
    (mighty_roles, "ALTER ROLE flux_audit BYPASSRLS"),
    (mighty_roles, "GRANT flux_owner TO flux_ingest"),
    (mighty_roles, "ALTER ROLE flux_owner LOGIN"),
    (mighty_roles, "GRANT flux_audit TO flux_reader_nasa"),
    (patient_roles, "ALTER ROLE flux_ingest SET lock_timeout = 0"),
    (patient_roles, "ALTER ROLE flux_reader_nasa RESET statement_timeout"),
    (greedy_readers, "ALTER ROLE flux_reader_nasa CONNECTION LIMIT -1"),
    (greedy_readers, "ALTER ROLE flux_reader RESET temp_file_limit"),
    (owners, "ALTER TABLE flux.runs OWNER TO flux_migrate"),
    (views_of_the_owner, "CREATE VIEW flux.more AS SELECT * FROM flux.runs"),
]
RULES = list(dict.fromkeys(rule for rule, _ in MUTANTS))


async def test_every_rule_holds(admin: Any) -> None:
    """The migrated database breaks none."""
    seen = await look(admin)
    broken = {rule.__name__: found for rule in RULES if (found := list(rule(seen)))}

    assert broken == {}, "\n".join(
        f"{rule.__name__}: instead: {rule.__doc__}" for rule in RULES if rule.__name__ in broken
    )


async def test_every_mutant_is_seen(admin: Any) -> None:
    """A rule that could not fail would prove nothing: each of these is found by its own."""
    unseen: list[str] = []
    for rule, mutant in MUTANTS:
        mutation = admin.transaction()
        await mutation.start()
        await admin.execute(mutant)
        if not list(rule(await look(admin))):
            unseen.append(f"{rule.__name__}: {mutant}")
        await mutation.rollback()

    assert unseen == []


async def test_there_is_something_to_look_at(admin: Any) -> None:
    """The five shared tables and the services' own are found; the machinery that is named exists."""
    seen = await look(admin)

    assert set(SHARED_OF) <= seen.tenant_tables
    assert len(seen.tenant_tables) == len(SHARED_OF) + 8
    assert {row["name"] for row in seen.tables} >= MACHINERY


@pytest.mark.parametrize("role", LOGIN_ROLES)
async def test_a_role_finds_its_own_tables_without_their_schema(admin: Any, role: str) -> None:
    """Its search_path leads to its own schema first, and nobody can put a table of theirs before it."""
    seen = await look(admin)
    path = {row["name"]: [s for s in row["settings"] or [] if s.startswith("search_path=")] for row in seen.roles}[role]
    wanted = {"flux_reader": ["search_path=flux, pg_temp"], "flux_migrate": []}

    assert path == wanted.get(role, [f"search_path={role}, flux, pg_temp"])
