"""A finding is a line, a line is a finding, and what does not hold is the exit status."""

from __future__ import annotations

import pytest

from flux_devkit.finding import Finding, report

HOLDS = Finding("p99 of good requests", True, "41 ms of 1,000", "500 ms")
SHORT = Finding("memory", False, "+200 MiB", "+128 MiB")


@pytest.mark.parametrize("finding", [HOLDS, SHORT], ids=["holds", "falls short"])
def test_a_line_says_the_whole_finding(finding: Finding) -> None:
    """What a proof printed, another reads."""
    assert Finding.of_line(finding.line()) == finding


@pytest.mark.parametrize("line", ["", "2 of 2 items hold", "ok", "okay x: 1 (bound: 2)"])
def test_other_lines_say_none(line: str) -> None:
    """Only an item's line is one."""
    assert Finding.of_line(line) is None


@pytest.mark.parametrize(
    ("findings", "status", "last"),
    [([HOLDS], 0, "1 of 1 items hold"), ([HOLDS, SHORT], 1, "1 of 2 items hold"), ([], 1, "0 of 0 items hold")],
)
def test_the_exit_status_is_zero_only_if_all_hold(
    findings: list[Finding], status: int, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing shown is nothing proven."""
    assert report(findings) == status
    assert capsys.readouterr().out.splitlines()[-1] == last
