"""Named queries: SQL lives in `.sql` files beside the code that runs it, as `-- name: apply_progress`.

Every statement is static text, so that nothing a stranger sends can become SQL (docs/trust.md, PostgreSQL).
"""

from __future__ import annotations

import re
from importlib import resources

_NAME = re.compile(r"^-- name: ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)
_NEARLY = re.compile(r"^\s*--\s*name\b.*$", re.MULTILINE | re.IGNORECASE)
_COMMENT = re.compile(r"--.*")


class Queries:
    """The named statements of one `.sql` file."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, name: str) -> str:
        """Return the text of a statement; KeyError names a statement that the file lacks."""
        return self._texts[name]

    @classmethod
    def load(cls, package: str, file: str) -> Queries:
        """Read `file` of `package`; raises ValueError as `parse` does."""
        return cls.parse(resources.files(package).joinpath(file).read_text())

    @classmethod
    def parse(cls, text: str) -> Queries:
        """Split a file's text at its `-- name:` lines.

        Raises:
            ValueError: two statements have one name, one is empty, or a line only nearly names one.
        """
        parts = _NAME.split(text)
        names, bodies = parts[1::2], [body.strip() for body in parts[2::2]]
        if len(set(names)) != len(names):
            raise ValueError("two statements have one name")
        for line in (line for part in parts[0::2] for line in _NEARLY.findall(part)):
            raise ValueError(f"this line names no statement: {line.strip()!r}; write `-- name: lower_case`")
        for name, body in zip(names, bodies, strict=True):
            if not _COMMENT.sub("", body).strip():
                raise ValueError(f"statement {name} is empty")
        return cls(dict(zip(names, bodies, strict=True)))
