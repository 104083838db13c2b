"""`dev.env` fills in what is not set, as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_client.cli.environment import adopt_dev_env, agency_of, token_from
from flux_client.cli.exits import Ended, Exit

TEXT = "FLUX_KAFKA_BOOTSTRAP=127.0.0.1:1\n# a comment\nFLUX_AGENCY='nasa'\nFLUX_READER_DSN=postgresql://r@h/d\n"


@pytest.fixture
def dev_env(tmp_path: Path) -> Path:
    (tmp_path / ".flux").mkdir()
    path = tmp_path / ".flux" / "dev.env"
    path.write_text(TEXT)
    return path


def test_it_is_found_from_below_and_fills_in_what_is_not_set(dev_env: Path, tmp_path: Path) -> None:
    """What the environment says stays."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    environ = {"FLUX_AGENCY": "esa"}

    assert adopt_dev_env(environ, deep) == dev_env
    assert environ == {
        "FLUX_AGENCY": "esa",
        "FLUX_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "FLUX_READER_DSN": "postgresql://r@h/d",
    }


def test_other_brokers_are_another_installation(dev_env: Path, tmp_path: Path) -> None:
    """Keys, prefix and DSN of the file never mix with other brokers."""
    environ = {"FLUX_KAFKA_BOOTSTRAP": "kafka.example:9092"}

    assert adopt_dev_env(environ, tmp_path) is None
    assert environ == {"FLUX_KAFKA_BOOTSTRAP": "kafka.example:9092"}


def test_it_can_be_named_and_turned_off(dev_env: Path, tmp_path: Path) -> None:
    """FLUX_DEV_ENV names it; empty means none; a name that is no file is an error."""
    elsewhere = tmp_path / "x"
    elsewhere.mkdir()

    assert adopt_dev_env({"FLUX_DEV_ENV": str(dev_env)}, elsewhere) == dev_env
    assert adopt_dev_env({"FLUX_DEV_ENV": ""}, tmp_path) is None
    with pytest.raises(Ended) as ended:
        adopt_dev_env({"FLUX_DEV_ENV": str(elsewhere / "none")}, tmp_path)
    assert ended.value.status == Exit.USAGE


@pytest.mark.parametrize("given", [None, "", "NASA", "a.b", "-a"])
def test_an_agency_is_named_in_its_grammar(given: str | None) -> None:
    """Nothing else reaches a topic's name."""
    with pytest.raises(Ended) as ended:
        agency_of(given)

    assert ended.value.status == Exit.USAGE


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    """As editors write files."""
    path = tmp_path / "token"
    path.write_text("a.b.c\n")

    assert token_from(path) == "a.b.c"
