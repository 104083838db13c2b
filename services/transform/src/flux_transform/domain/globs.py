"""Which keys a request means: glob patterns over the key below the source's URI.

A pattern without a slash is matched against the last part of a key, at any depth, as people expect of `*.tif`. A
pattern with a slash is matched against the whole key, part by part: `*` and `?` stay inside a part, `**` spans any
number of parts. Matching is case sensitive, because keys are. Patterns come from strangers, so each part goes through
`fnmatch`, whose expressions do not backtrack, and `**` is matched by filling a row, not by recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def selected(key: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a key is meant: no include or one that matches, and no exclude that matches."""
    wanted = not include or any(matches(key, pattern) for pattern in include)
    return wanted and not any(matches(key, pattern) for pattern in exclude)


def matches(key: str, pattern: str) -> bool:
    """Return whether a glob pattern matches a key."""
    if "/" not in pattern:
        return fnmatchcase(key.rsplit("/", 1)[-1], pattern)
    return _parts_match(key.split("/"), pattern.lstrip("/").split("/"))


def _parts_match(parts: list[str], patterns: list[str]) -> bool:
    """Match parts to patterns; `reached[i]` says whether the patterns so far can consume the first i parts."""
    reached = [True] + [False] * len(parts)
    for pattern in patterns:
        reached = _spanned(reached) if pattern == "**" else _stepped(reached, parts, pattern)
    return reached[-1]


def _spanned(reached: list[bool]) -> list[bool]:
    """`**` consumes any number of parts: all that lies after the first reached place is reached too."""
    first = reached.index(True) if True in reached else len(reached)
    return [i >= first for i in range(len(reached))]


def _stepped(reached: list[bool], parts: list[str], pattern: str) -> list[bool]:
    """Any other pattern consumes exactly one part."""
    return [False] + [reached[i] and fnmatchcase(part, pattern) for i, part in enumerate(parts)]
