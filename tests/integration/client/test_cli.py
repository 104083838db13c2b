"""The command `flux-etl` on a whole Flux: four real services, a real Kafka and PostgreSQL, configured by dev.env alone.

Each test says what a person types and what a script gets: standard output as JSON, and the exit status.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux_client.cli.exits import Exit
from flux_client.verifier import Failure
from flux_devkit.asking import texts
from flux_devkit.flux import Flux, wait_until
from flux_devkit.installation import Installation
from flux_devkit.plugin import ROLE_PASSWORD, PostgresServer
from flux_devkit.servers import Servers
from flux_devkit.sessions import TestSession

from .command_line import AGENCY, CommandLine, as_owner, dev_env, ledger, position

SLOW = {"FLUX_DISPATCH_BACKOFF_MIN_S": "0.2"}


@pytest.fixture(scope="module")
def flux_etl(kafka_bootstrap: str, postgres_server: PostgresServer, flux_session: TestSession) -> Iterator[CommandLine]:
    """A running installation, and a folder with its dev.env."""
    folder = flux_session.folder / "client-cli"
    installation = Installation(
        Servers(kafka_bootstrap, postgres_server.dsn),
        role_password=ROLE_PASSWORD,
        keys=folder / "keys",
        folder=folder / "data",
        database=f"cli_{secrets.token_hex(6)}",
        topic_prefix=f"cli{secrets.token_hex(3)}.",
        overrides={"checkpoint": SLOW},
    )
    with Flux(installation, folder / "logs") as running:
        work = folder / "work"
        (work / ".flux").mkdir(parents=True)
        (work / ".flux" / "dev.env").write_text(dev_env(installation))
        yield CommandLine(running, work)


def test_a_run_is_submitted_watched_and_shown(flux_etl: CommandLine) -> None:
    """`submit --wait` tells progress line by line, ends 0, and the whole story is one JSON object; `get` agrees."""
    said = flux_etl("submit", "-f", str(flux_etl.request("shown", partitioning={"objects_max": 2})), "--wait")
    story = said.json
    shown = flux_etl("runs", "get", "shown").json

    assert said.status == Exit.OK
    assert story["decision"]["type"] == "flux.run.accepted.v1"
    assert (story["outcome"]["type"], story["outcome"]["counts"]["read"]) == ("flux.run.completed.v1", 6)
    assert said.err.splitlines()[:2] == ["SUBMITTED", "ACCEPTED"]
    assert said.err.splitlines()[-1].startswith("COMPLETED  6/6 objects (100 %), 3/3 partitions")
    assert (shown["run_id"], shown["state"], shown["partitions_finished"]) == (story["run_id"], "COMPLETED", 3)
    assert shown["manifest_digest"] == story["outcome"]["manifest"]["sha256"]


def test_the_same_request_again_is_repeated_and_ends_the_same(flux_etl: CommandLine) -> None:
    """Whoever lost the answer asks again."""
    first = flux_etl.done()
    again = flux_etl.done()

    assert again["decision"]["type"] == "flux.run.repeated.v1"
    assert again["outcome"] == first["outcome"]


def test_a_refused_request_is_exit_4_with_the_code(flux_etl: CommandLine) -> None:
    """Another body under a taken id."""
    flux_etl.done()
    conflict = flux_etl("submit", "-f", str(flux_etl.request("done", labels={"box": "17"})), "--decision")

    assert conflict.status == Exit.REFUSED
    assert conflict.json["decision"]["code"] == "REQUEST_CONFLICT"
    assert "REQUEST_CONFLICT" in conflict.err
    assert "next:" in conflict.err


def test_a_failed_run_is_exit_5_and_can_be_retried(flux_etl: CommandLine) -> None:
    """An empty source fails, cause input; once there is something, `retry` and `watch` see it complete."""
    path = flux_etl.request("empty", files=0)
    failed = flux_etl("submit", "-f", str(path), "--wait")
    texts(flux_etl.flux.folder("archives", AGENCY, "empty"), 2)
    retried = flux_etl("runs", "retry", "empty", "--reason", "the box has arrived")
    watched = flux_etl("runs", "watch", "empty")

    assert (failed.status, failed.json["outcome"]["code"]) == (Exit.RUN_FAILED, "SOURCE_EMPTY")
    assert (retried.status, retried.json["outcome"]["type"]) == (Exit.OK, "flux.run.command-applied.v1")
    assert (watched.status, watched.json["state"], watched.json["run_attempt"]) == (Exit.OK, "COMPLETED", 2)


def test_a_command_that_changes_nothing_is_exit_4(flux_etl: CommandLine) -> None:
    """A completed run cannot be cancelled; run id and request id both name it."""
    run = flux_etl.done()
    said = flux_etl("runs", "cancel", run["run_id"], "--reason", "too late")

    assert said.status == Exit.REFUSED
    assert said.json["decision"]["type"] == "flux.run.command-accepted.v1"
    assert said.json["outcome"]["code"] == "RUN_STATE"


def test_a_viewer_may_not_command(flux_etl: CommandLine) -> None:
    """The role in the token decides."""
    flux_etl.done()
    said = flux_etl("runs", "pause", "done", "--reason", "x", "--role", "viewer")

    assert (said.status, said.json["decision"]["code"]) == (Exit.REFUSED, "ROLE_FORBIDDEN")


def test_a_cancelled_run_is_exit_6_for_who_waits(flux_etl: CommandLine) -> None:
    """Cancelled before a worker has begun; whoever watches learns how it ended."""
    transform = flux_etl.flux.services["transform"]
    transform.pause()
    try:
        flux_etl("submit", "-f", str(flux_etl.request("cancelled")), "--decision")
        wait_until("the run is recorded", lambda: flux_etl("runs", "get", "cancelled").status == Exit.OK)
        cancelled = flux_etl("runs", "cancel", "cancelled", "--reason", "wrong box")
        watched = flux_etl("runs", "watch", "cancelled")
    finally:
        transform.resume()

    assert cancelled.status == Exit.OK, cancelled.err
    assert (watched.status, watched.json["state"]) == (Exit.RUN_CANCELLED, "CANCELLED")


def test_without_a_reader_the_topics_tell_the_end(flux_etl: CommandLine) -> None:
    """An agency that has no database log-in waits and watches all the same; by run id or by request id."""
    flux_etl.done()
    by_request = flux_etl("runs", "watch", "done", FLUX_READER_DSN="")
    again = flux_etl("submit", "-f", str(flux_etl.folder / "done.json"), "--wait", FLUX_READER_DSN="")
    by_run = flux_etl("runs", "watch", by_request.json["run_id"], FLUX_READER_DSN="")

    assert [said.status for said in (by_request, again, by_run)] == [Exit.OK] * 3
    assert by_request.json == by_run.json == again.json["outcome"]


def test_runs_are_listed_newest_first_and_by_state(flux_etl: CommandLine) -> None:
    """And no agency sees another's."""
    run = flux_etl.done()
    listed = flux_etl("runs", "ls", "--state", "COMPLETED").json
    others = flux_etl("runs", "ls", agency="library-of-congress")
    hidden = flux_etl("runs", "get", run["run_id"], agency="library-of-congress")

    assert run["run_id"] in [row["run_id"] for row in listed]
    assert [row["admitted_at"] for row in listed] == sorted((row["admitted_at"] for row in listed), reverse=True)
    assert (others.status, others.json) == (Exit.OK, [])
    assert (hidden.status, hidden.out) == (Exit.NOT_FOUND, "")


def test_history_is_paged_and_followed(flux_etl: CommandLine) -> None:
    """`--after` goes on where a page ended; `--follow` writes one object a line and ends with the run."""
    flux_etl.done()
    whole = flux_etl("runs", "events", "done").json
    first = flux_etl("runs", "events", "done", "-n", "2").json
    rest = flux_etl("runs", "events", "done", "--after", str(first[-1]["event_no"])).json
    followed = [json.loads(line) for line in flux_etl("runs", "events", "done", "--follow").out.splitlines()]

    assert first + rest == whole == followed
    assert len(whole) > 6


def test_a_chain_holds_until_somebody_touches_it(flux_etl: CommandLine) -> None:
    """Every partition is recomputed; one changed digest is exit 9 and named."""
    run = flux_etl.done("touched")
    sound = flux_etl("checkpoints", "verify", "touched")
    as_owner(
        flux_etl.flux,
        "UPDATE flux.checkpoint_hashes SET hash = sha256(hash) "
        f"WHERE run_id = '{run['run_id']}' AND number = 1 AND seq = 1",
    )
    broken = flux_etl("checkpoints", "verify", "touched")
    as_owner(flux_etl.flux, f"DELETE FROM flux.runs WHERE run_id = '{run['run_id']}'")

    assert (sound.status, [row["fault"] for row in sound.json]) == (Exit.OK, [None, None, None])
    assert broken.status == Exit.FAULTS
    assert [row["number"] for row in broken.json if row["fault"]] == [1]


def test_a_receipt_is_fetched_and_proven_offline(flux_etl: CommandLine) -> None:
    """Fetched once, it needs no server; one flipped letter, another agency or another key is found, each by its status."""
    event_id = flux_etl.done()["outcome"]["event_id"]
    fetched = flux_etl("audit", "receipt", event_id, "--save", "receipt.json", "--timeout", "30")
    offline = {"FLUX_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    key = flux_etl.flux.installation.verifier_key(AGENCY)
    verified = flux_etl("audit", "verify", "receipt.json", "--key", key, **offline)
    receipt = json.loads((flux_etl.folder / "receipt.json").read_text())
    (flux_etl.folder / "forged.json").write_text(json.dumps(receipt | {"leaf_index": receipt["leaf_index"] + 1}))
    forged = flux_etl("audit", "verify", "forged.json")
    theirs = flux_etl("audit", "verify", "receipt.json", agency="national-archives")

    assert fetched.status == Exit.OK, fetched.err
    assert (verified.status, verified.json["entry"]["refs"]["event_id"]) == (Exit.OK, event_id)
    assert (forged.status, forged.json["failure"]) == (Failure.DENSITY, "density")
    assert theirs.status == Failure.TENANT


def test_the_audit_log_is_listed_and_shown(flux_etl: CommandLine) -> None:
    """Newest first, whole on request, and found by leaf or by event."""
    event_id = flux_etl.done()["outcome"]["event_id"]
    flux_etl("audit", "receipt", event_id, "--timeout", "30")
    listed = flux_etl("audit", "ls", "-n", "10000").json
    (by_event,) = flux_etl("audit", "show", event_id).json
    (by_leaf,) = flux_etl("audit", "show", str(by_event["seq"])).json

    assert [row["seq"] for row in listed] == list(range(len(listed) - 1, -1, -1))
    assert by_event["entry"]["type"] == "run.completed"
    assert by_leaf == by_event
    assert flux_etl("audit", "show", str(len(listed) + 10_000)).status == Exit.NOT_FOUND


def test_every_position_is_explained_with_the_ids_to_follow(flux_etl: CommandLine) -> None:
    """A request by its decision, a report by its row, a fact by its leaf; with the ledger, also what left no row."""
    run = flux_etl.done()
    asked = flux_etl("explain", *position(run["decision"]["first" if "first" in run["decision"] else "position"])).json
    events = flux_etl("runs", "events", "done").json
    sliced = next(row for row in events if row["type"] == "flux.progress.sliced.v1")
    where = ["flux-internal.progress.v1", str(sliced["kafka_partition"])]
    report = flux_etl("explain", *where, str(sliced["kafka_offset"])).json
    booked = ledger(flux_etl.flux, "checkpoint")
    first = flux_etl("explain", *where, "0", **booked).json
    beyond = flux_etl("explain", *where, "1000000", **booked).json
    facts = flux_etl("audit", "show", "0").json[0]
    fact = flux_etl("explain", "flux-internal.audit.v1", str(facts["kafka_partition"]), str(facts["kafka_offset"])).json

    assert (asked["class"], asked["decision"]["run_id"]) == ("effect", run["run_id"])
    assert (report["class"], report["effects"][0]["run_id"]) == ("effect", run["run_id"])
    assert (first["class"], first["ledger"]["class"]) == ("effect", "effect")
    assert (beyond["class"], beyond["record"]["state"]) == ("unread", "not yet written")
    assert (fact["class"], fact["sealed"]["seq"]) == ("effect", 0)


def test_what_the_catalogue_does_not_have_cannot_be_explained(flux_etl: CommandLine) -> None:
    """Neither can another agency's topic."""
    unknown = flux_etl("explain", "some.topic", "0", "0")
    foreign = flux_etl("explain", "flux.national-archives.run.requests.v1", "0", "0")

    assert (unknown.status, foreign.status) == (Exit.NOT_FOUND, Exit.NOT_FOUND)


def test_lag_is_shown_for_every_group(flux_etl: CommandLine) -> None:
    """Nothing is negative, and the services' groups are there."""
    flux_etl.done()
    rows = flux_etl("lag").json

    assert {"flux-ingest-requests", "flux-checkpoint-runs"} <= {row["group"] for row in rows}
    assert all(row["lag"] == max(row["end"] - row["committed"], 0) for row in rows)


def test_the_topics_job_changes_nothing_the_second_time(flux_etl: CommandLine) -> None:
    """Everything is present, with its id; what differs from production's settings is said, and not altered."""
    again = flux_etl("topics", "apply", "--development")
    strict = flux_etl("topics", "apply", "--replication", "1")

    assert (again.status, {row["state"] for row in again.json}) == (Exit.OK, {"present"})
    assert strict.status == Exit.FAULTS
    assert "min.insync.replicas is 1, not 2" in strict.err


def test_time_that_runs_out_is_exit_7_and_loses_nothing(flux_etl: CommandLine) -> None:
    """The wait ends; the run does not, and the next step says how to go on."""
    path = flux_etl.request("late", files=3)
    said = flux_etl("submit", "-f", str(path), "--wait", "--timeout", "0.1")
    later = flux_etl("submit", "-f", str(path), "--wait")

    assert said.status == Exit.TIMED_OUT
    assert "next:" in said.err
    assert later.json["outcome"]["type"] == "flux.run.completed.v1"


def test_servers_that_do_not_answer_are_exit_8(flux_etl: CommandLine) -> None:
    """Kafka and PostgreSQL alike; no traceback."""
    kafka = flux_etl("lag", FLUX_DEV_ENV="", FLUX_KAFKA_BOOTSTRAP="127.0.0.1:1", FLUX_KAFKA_REQUEST_TIMEOUT_MS="2000")
    postgres = flux_etl("runs", "ls", FLUX_READER_DSN="postgresql://flux_reader@127.0.0.1:1/flux")

    assert [kafka.status, postgres.status] == [Exit.UNAVAILABLE, Exit.UNAVAILABLE]
    assert "Traceback" not in kafka.err + postgres.err


def test_the_installed_command_is_the_same(flux_etl: CommandLine) -> None:
    """As a process of its own, by its script: result on one stream, everything else on the other."""
    flux_etl.done()
    script = Path(sys.executable).with_name("flux-etl")
    done = subprocess.run(
        [script, "runs", "get", "done"],
        cwd=flux_etl.folder,
        env=flux_etl.environment(),
        capture_output=True,
        check=True,
    )

    assert json.loads(done.stdout) == flux_etl("runs", "get", "done").json
    assert done.stderr == b""


def test_tables_are_for_people(flux_etl: CommandLine) -> None:
    """Without `-o` a list is aligned columns."""
    flux_etl.done()
    lines = flux_etl("runs", "ls", "-o", "table").out.splitlines()

    assert lines[0].split()[:3] == ["REQUEST_ID", "RUN_ID", "STATE"]
    assert any(line.startswith("done ") for line in lines)
