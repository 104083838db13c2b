"""The command line's own behaviour: help, exit statuses, messages with a next step, nothing but results on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flux_client.cli.app import judged, run
from flux_client.cli.exits import Exit
from flux_client.cli.progress import line
from flux_client.development import write_development_registry
from flux_client.keys import ensure_key
from flux_client.watching import Progress
from flux_common.kernel.errors import FluxError, InvariantBroken, Unavailable, ValidationFailed

Captured = pytest.CaptureFixture[str]


def test_help_lists_every_command_and_every_exit_status(capsys: Captured) -> None:
    """Whoever writes a script finds the statuses where they look first."""
    status = run(["--help"])
    said = capsys.readouterr().out

    assert status == Exit.OK
    assert [word for word in ("submit", "runs", "explain", "checkpoints", "audit", "lag", "topics", "agencies", "token",
                              "dev") if f"\n  {word} " not in said] == []  # fmt: skip
    assert [each.name for each in Exit if f"\n  {each.value} " not in said] == []


def test_help_needs_none_of_the_heavy_libraries() -> None:
    """Completion and help answer at once: clients of Kafka and PostgreSQL are imported by who uses them."""
    code = "import sys; from flux_client.cli.app import run; run(['runs', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()

    assert [name for name in ("aiokafka", "confluent_kafka", "asyncpg", "jwt", "opentelemetry") if name in loaded] == []
    assert "typer" in loaded


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nonsense"], Exit.USAGE, "nonsense"),
        (["runs", "cancel", "r-1", "-a", "nasa"], Exit.USAGE, "--reason"),
        (["runs", "ls", "-a", "nasa"], Exit.USAGE, "FLUX_READER_DSN is not set"),
        (["runs", "ls"], Exit.USAGE, "FLUX_READER_DSN is not set"),
        (["lag"], Exit.USAGE, "FLUX_KAFKA_BOOTSTRAP is not set"),
        (["submit", "-f", "none.json", "-a", "nasa"], Exit.NOT_FOUND, "none.json"),
        (["audit", "verify", "none", "-a", "nasa", "--key", "k"], Exit.NOT_FOUND, "none"),
        (["audit", "verify", "none", "-a", "nasa"], Exit.USAGE, "FLUX_AUDIT_VERIFIER_KEY"),
        (["token", "mint", "-a", "nasa"], Exit.USAGE, "FLUX_KEYS_DIR"),
        (["agencies", "check"], Exit.USAGE, "FLUX_AGENCIES_FILE"),
    ],
)
def test_an_error_is_a_message_on_standard_error_and_a_status(
    capsys: Captured, arguments: list[str], status: Exit, said: str
) -> None:
    """Standard output stays empty, so no script takes an error for a result."""
    found = run(arguments)
    captured = capsys.readouterr()

    assert (found, captured.out) == (status, "")
    assert said in captured.err


def test_a_request_that_is_no_strict_json_is_refused_before_anything_is_sent(tmp_path: Path, capsys: Captured) -> None:
    """A repeated name is refused here as it is by Flux."""
    (tmp_path / "run.json").write_text('{"request_id": "a", "request_id": "b"}')

    assert run(["submit", "-f", "run.json", "-a", "nasa"]) == Exit.USAGE
    assert "JSON" in capsys.readouterr().err


def test_a_minted_token_is_all_that_standard_output_holds(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`TOKEN=$(flux-etl token mint)` works."""
    ensure_key(tmp_path / "keys", "nasa")
    monkeypatch.setenv("FLUX_KEYS_DIR", str(tmp_path / "keys"))

    status = run(["token", "mint", "-a", "nasa"])

    assert (status, capsys.readouterr().out.count(".")) == (Exit.OK, 2)


def test_agencies_check_lists_agencies_and_counts_their_keys(tmp_path: Path, capsys: Captured) -> None:
    """A good registry is shown as it is understood."""
    path = write_development_registry(tmp_path / "keys")

    status = run(["agencies", "check", str(path), "-o", "json"])
    rows = json.loads(capsys.readouterr().out)

    assert status == Exit.OK
    assert [(row["agency"], row["keys"]) for row in rows] == [
        ("library-of-congress", 1),
        ("nasa", 1),
        ("national-archives", 1),
    ]


def test_agencies_check_names_every_fault(tmp_path: Path, capsys: Captured) -> None:
    """A registry with faults is exit status 9, with each fault's path."""
    path = write_development_registry(tmp_path / "keys")
    path.write_text(path.read_text().replace("algorithms:\n      - ES256", "algorithms:\n      - HS256"))

    assert run(["agencies", "check", str(path)]) == Exit.FAULTS
    assert capsys.readouterr().err.count("algorithms[0]") == 2


def test_a_missing_development_key_names_the_next_step(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agency without a key is not found."""
    monkeypatch.setenv("FLUX_KEYS_DIR", str(tmp_path))

    assert run(["token", "mint", "-a", "esa"]) == Exit.NOT_FOUND
    assert "next:" in capsys.readouterr().err


def test_dev_without_the_kit_says_where_it_comes_from(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, no guess."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert run(["dev", "up"]) == Exit.NOT_FOUND
    assert "make setup" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("BROKER_UNAVAILABLE", "Kafka does not answer"), Exit.UNAVAILABLE),
        (Unavailable("TOPIC_MISSING", "Missing topics: x"), Exit.NOT_FOUND),
        (ValidationFailed("SCHEMA_VIOLATION", "No request").with_violations([("/source", "required")]), Exit.USAGE),
        (FluxError("SETTINGS_INVALID", "FLUX_X is not set"), Exit.USAGE),
        (InvariantBroken("INVARIANT_BROKEN", "A contradiction"), Exit.FAILED),
    ],
)
def test_each_class_of_error_has_its_status(error: FluxError, status: Exit) -> None:
    """The class decides, and there is always a next step."""
    ended = judged(error)

    assert ended.status == status
    assert ended.next_step


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress("PLANNING", 0, 0, 0, 0, 0, 1), "PLANNING"),
        (Progress("RUNNING", 500, 120, 2, 10, 3, 1), "RUNNING  120/500 objects (24 %), 3/10 partitions, 2 rejected"),
        (Progress("RUNNING", 500, 120, 0, 10, 3, 2), "RUNNING (attempt 2)  120/500 objects (24 %), 3/10 partitions"),
    ],
)
def test_progress_is_one_line(progress: Progress, text: str) -> None:
    """Where there is no terminal, a log reads well."""
    assert line(progress) == text
