"""Which keys a pattern means."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_transform.domain.globs import matches, selected


@pytest.mark.parametrize(
    ("key", "pattern", "expected"),
    [
        ("a.tif", "*.tif", True),
        ("box/folder/a.tif", "*.tif", True),
        ("a.TIF", "*.tif", False),
        ("box/a.tif", "box/*.tif", True),
        ("box/folder/a.tif", "box/*.tif", False),
        ("box/folder/a.tif", "box/**/*.tif", True),
        ("box/a.tif", "box/**/*.tif", True),
        ("box/a.tif", "**/*.tif", True),
        ("a.tif", "**/*.tif", True),
        ("box/a.tif", "/box/*.tif", True),
        ("box/folder/a.tif", "box/**", True),
        ("boxes/a.tif", "box/**", False),
        ("a1.tif", "a[0-9].tif", True),
        ("ab.tif", "a?.tif", True),
        ("x/a/b/c/y", "x/**/b/**/y", True),
        ("x/a/c/y", "x/**/b/**/y", False),
    ],
)
def test_a_pattern_without_a_slash_is_about_the_name_and_one_with_a_slash_about_the_path(
    key: str, pattern: str, expected: bool
) -> None:
    """`*.tif` matches at any depth; with a slash, `*` stays inside a part and `**` spans parts."""
    found = matches(key, pattern)

    assert found == expected


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], True),
        (["*.jpg"], [], False),
        (["*.jpg", "*.tif"], [], True),
        ([], ["box/**"], False),
        (["*.tif"], ["*.tif"], False),
    ],
)
def test_exclude_wins_over_include(include: list[str], exclude: list[str], expected: bool) -> None:
    """Nothing included means everything; what is excluded is never selected."""
    found = selected("box/a.tif", include, exclude)

    assert found == expected


@given(st.text("ab.*?", max_size=8), st.text("ab.*?", max_size=8))
def test_names_follow_fnmatch(key: str, pattern: str) -> None:
    """For keys without folders, a pattern means what the standard library says it means."""
    expected = fnmatch.fnmatchcase(key, pattern)

    assert matches(key, pattern) == expected


def test_a_hostile_pattern_costs_no_backtracking() -> None:
    """Many stars and many spans are matched by filling rows, not by trying out."""
    key = "/".join("a" * 200 for _ in range(50))

    found = matches(key, "**/*a*a*a*a*a*a*a*a*b/" * 10 + "**")

    assert found is False
