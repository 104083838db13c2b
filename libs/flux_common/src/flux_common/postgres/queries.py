"""Named queries: SQL lives in `.sql` files beside the code that runs it, as `-- name: apply_progress`.

Every statement is static text, so that nothing a stranger sends can become SQL (trust.md, PostgreSQL).
"""

from __future__ import annotations

import re
from importlib import resources

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\s*$", re.MULTILINE)


class Queries:
    """The named statements of one `.sql` file."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, name: str) -> str:
        """Return the text of a statement; KeyError names a statement that the file lacks."""
        return self._texts[name]

    @classmethod
    def load(cls, package: str, file: str) -> Queries:
        """Read `file` of `package`; two statements of one name are refused."""
        return cls.parse(resources.files(package).joinpath(file).read_text())

    @classmethod
    def parse(cls, text: str) -> Queries:
        """Split a file's text at its `-- name:` lines."""
        parts = _NAME.split(text)[1:]
        names = parts[0::2]
        if len(set(names)) != len(names):
            raise ValueError("two statements have one name")
        return cls(dict(zip(names, (body.strip() for body in parts[1::2]), strict=True)))
