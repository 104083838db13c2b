"""The rules that keep the rooms tidy, read from the syntax trees of everything that ships, and of the tests.

What is about size and theory holds for tests as well; rooms, input and effects are not theirs to keep. A rule yields
findings; a finding says where, and the rule says what to do instead. Each rule is itself proved by a seeded violation, so
that none can pass because it looks at nothing.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 12
FILE_LINES_MAX = 400
PLACES = ("libs/*/src", "services/*/src", "tests")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file: its package-relative name, its text and its tree."""

    root: Path
    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Return the path inside its `src` folder, such as `flux_common/kernel/ids.py`; of a test, from the root."""
        return self.path.relative_to(self.root).as_posix().split("/src/")[-1]

    @property
    def ships(self) -> bool:
        """Say whether the file is of a package, and not of the tests."""
        return self.package != "tests"

    @property
    def package(self) -> str:
        """Return the top package, such as `flux_common`."""
        return self.name.split("/")[0]

    def is_in(self, *places: str) -> bool:
        """Say whether the file is one of `places`, or lies in one that ends with `/`."""
        return any(self.name == place or (place.endswith("/") and self.name.startswith(place)) for place in places)

    def in_room(self, *rooms: str) -> bool:
        """Say whether the file is a room of that name, or in it, of any package."""
        return self.name.split("/")[1].removesuffix(".py") in rooms

    def nodes(self) -> Iterator[ast.AST]:
        """Yield every node."""
        return ast.walk(self.tree)


@dataclass(frozen=True)
class Finding:
    """Where a rule is broken, and how."""

    where: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.where}:{self.line}: {self.what}"


def sources(root: Path) -> list[Source]:
    """Return every Python file under the `src` folders of `root`, and every test."""
    paths = sorted(path for place in PLACES for path in root.glob(f"{place}/**/*.py"))
    return [Source(root, path, text := path.read_text(), ast.parse(text)) for path in paths]


def function_lines(function: Function) -> int:
    """Return the lines of a function without its docstring."""
    end = function.end_lineno or function.lineno
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    return end - function.lineno + 1 - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)


def functions(source: Source) -> Iterator[Function]:
    """Yield the functions and methods of `source`."""
    return (node for node in source.nodes() if isinstance(node, Function))


def imported(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every absolute import; `from a import b` is `a.b` where `b` may be a module."""
    for node in source.nodes():
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


# Rules. Each docstring is its remedy, printed beneath the findings.


def long_functions(source: Source) -> Iterator[tuple[int, str]]:
    """Split the function where its steps have names of their own; about ten lines are usual, 70 the limit."""
    for function in functions(source):
        if function_lines(function) > FUNCTION_LINES_MAX:
            yield function.lineno, f"{function.name} has {function_lines(function)} lines"


def long_files(source: Source) -> Iterator[tuple[int, str]]:
    """Split the module along its ideas; 400 lines are the limit."""
    lines = len(source.text.splitlines())
    if lines > FILE_LINES_MAX:
        yield lines, f"{lines} lines"


def modules_without_theory(source: Source) -> Iterator[tuple[int, str]]:
    """Open the module with what must hold, who is authoritative, and what happens on failure."""
    if ast.get_docstring(source.tree) is None:
        yield 1, "no docstring"


AMBIENT_MODULES = {"time", "random", "secrets"}
AMBIENT_CALLS = {
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid.uuid1", "uuid.uuid4"),
    *("os.environ", "os.getenv", "os.urandom", "os.getpid"),
}
AMBIENT_NAMES = {("uuid", "uuid4"), ("uuid", "uuid1"), ("os", "environ"), ("os", "getenv"), ("os", "urandom")}
AMBIENT_PLACES = ("flux_common/kernel/clock.py", "flux_common/settings/", "flux_common/runtime/", "flux_devkit/")


def ambient_input(source: Source) -> Iterator[tuple[int, str]]:
    """Take time, ids, randomness and settings as arguments (kernel.clock.Clock, derived ids, a Section)."""
    if source.is_in(*AMBIENT_PLACES) or source.name.startswith("flux_client/cli"):
        return
    for node in source.nodes():
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {a.name}") for a in node.names if a.name in AMBIENT_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [a.name for a in node.names if (node.module, a.name) in AMBIENT_NAMES]
            if node.module in AMBIENT_MODULES or names:
                yield node.lineno, f"from {node.module} import …"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in AMBIENT_CALLS:
            yield node.lineno, ast.unparse(node)


SQL = re.compile(
    r"^\s*(select|insert into|update \w|delete from|with \w+ as|listen|notify|truncate|set local|set role)\b"
    r"|\bSELECT\b.+\bFROM\b|\bINSERT\s+INTO\b|\bUPDATE\s+[\w.]+\s+SET\b|\bDELETE\s+FROM\b|\bFOR\s+UPDATE\b"
    r"|\b(CREATE|ALTER|DROP)\s+(TABLE|ROLE|DATABASE|SCHEMA|INDEX|POLICY|EXTENSION)\b|\bTRUNCATE\s+\w|\bGRANT\s+\w",
    re.S,
)


def sql_in_python(source: Source) -> Iterator[tuple[int, str]]:
    """Put the statement into a `.sql` file beside the module as `-- name: x`, with one line of why."""
    said = {id(node.value) for node in source.nodes() if isinstance(node, ast.Expr)}
    for node in source.nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            text = node.value
            if SQL.search(text) or re.match(r"\s*(SELECT|BEGIN|COMMIT|ROLLBACK|LISTEN|NOTIFY|SET)\b\s*\S", text):
                yield node.lineno, f"SQL: {text.strip()[:40]!r}"


LOOP_PLACES = ("flux_common/kafka/lanes.py", "flux_common/kafka/work.py", "flux_common/runtime/")


def broad_excepts(source: Source) -> Iterator[tuple[int, str]]:
    """Name the errors that you expect; the loop and the runtime alone judge the rest. Re-raising is allowed."""
    if source.is_in(*LOOP_PLACES):
        return
    for node in source.nodes():
        if isinstance(node, ast.ExceptHandler) and not _re_raises(node):
            caught = ast.unparse(node.type) if node.type else "everything"
            if re.search(r"\b(everything|Exception|BaseException)\b", caught):
                yield node.lineno, f"except {caught}"


def _re_raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in handler.body)


VAGUE = re.compile(
    r"(?i)(^|_)(utils?|helpers?|managers?|processors?|misc|common)(_|$)|(Util|Helper|Manager|Processor)s?$"
)


def vague_names(source: Source) -> Iterator[tuple[int, str]]:
    """Name it after what it is or does, in the words of docs/glossary.md."""
    for part in source.name.removesuffix(".py").split("/")[1:]:
        if VAGUE.search(part):
            yield 1, f"module {part}"
    for node in source.nodes():
        if isinstance(node, ast.ClassDef | Function) and VAGUE.search(node.name):
            yield node.lineno, node.name


PURE_ROOMS = ("domain", "ports")


def impure_imports(source: Source) -> Iterator[tuple[int, str]]:
    """Keep domain and ports to the standard library, flux_common.kernel and each other; adapters know the rest."""
    kernel = source.is_in("flux_common/kernel/")
    if not kernel and not (source.package not in LIBRARIES and source.in_room(*PURE_ROOMS)):
        return
    allowed = ("flux_common.kernel", *(f"{source.package}.{room}" for room in PURE_ROOMS if not kernel))
    for line, module in imported(source):
        own = any(module == each or module.startswith(each + ".") for each in allowed)
        if not own and module.split(".")[0] not in sys.stdlib_module_names:
            yield line, f"import {module}"


LIBRARIES = ("flux_common", "flux_client", "flux_devkit")
SIDE_EFFECTS = {"logging", "asyncio", "socket", "subprocess", "threading", "urllib", "http"}


def effects_in_domain(source: Source) -> Iterator[tuple[int, str]]:
    """Decide in the domain, act in a handler: no await, no logging, no I/O, and dataclasses are frozen."""
    if source.package in LIBRARIES or not source.in_room("domain"):
        return
    yield from ((line, f"import {m}") for line, m in imported(source) if m.split(".")[0] in SIDE_EFFECTS)
    for node in source.nodes():
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield node.lineno, "async"
        elif isinstance(node, ast.ClassDef):
            yield from (
                (node.lineno, f"{node.name} is not frozen")
                for decorator in map(ast.unparse, node.decorator_list)
                if decorator.split("(")[0] in ("dataclass", "dataclasses.dataclass") and "frozen=True" not in decorator
            )


MIRRORED_ROOMS = ("domain", "handlers", "adapters")


def modules_without_mirror(source: Source) -> Iterator[tuple[int, str]]:
    """Write tests/unit/<service>/…/test_<module>.py (or under tests/integration)."""
    if source.package in LIBRARIES or not source.in_room(*MIRRORED_ROOMS) or source.path.name.startswith("__"):
        return
    service = source.package.removeprefix("flux_")
    if not any(source.path.name in names for names in _mirrors(source.root, service)):
        yield 1, f"no test_{source.path.name}"


def _mirrors(root: Path, service: str) -> Iterator[set[str]]:
    for top in ("unit", "integration"):
        yield {path.name.removeprefix("test_") for path in (root / "tests" / top / service).rglob("test_*.py")}


Rule = Callable[[Source], Iterator[tuple[int, str]]]
RULES: list[Rule] = [
    long_functions,
    long_files,
    modules_without_theory,
    ambient_input,
    sql_in_python,
    broad_excepts,
    vague_names,
    impure_imports,
    effects_in_domain,
    modules_without_mirror,
]
OF_TESTS_TOO: list[Rule] = [long_functions, long_files, modules_without_theory]


def findings(rule: Rule, found: list[Source]) -> list[Finding]:
    """Return what `rule` finds in `found`."""
    return [
        Finding(source.path.relative_to(source.root).as_posix(), line, what)
        for source in found
        if source.ships or rule in OF_TESTS_TOO
        for line, what in rule(source)
    ]


@cache
def _repository() -> list[Source]:
    return sources(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rule(rule: Rule) -> None:
    """Nothing that ships breaks the rule, nor a test where it is for tests."""
    broken = findings(rule, _repository())

    assert not broken, "\n".join([*map(str, broken), f"Instead: {rule.__doc__}"])


def test_functions_are_short() -> None:
    """The median function of what ships has at most twelve lines."""
    lengths = [function_lines(function) for source in _repository() if source.ships for function in functions(source)]

    assert statistics.median(lengths) <= FUNCTION_LINES_MEDIAN_MAX, "Split functions; about ten lines are usual"


# One seeded violation for each rule: where it stands, and what stands there.
THEORY = '"""Theory."""\n'
LONG_FUNCTION, LONG_FILE = "def f():\n" + "    x = 1\n" * 70, "x = 1\n" * 400
SEEDS: list[tuple[Rule, str, str]] = [
    (long_functions, "services/ingest/src/flux_ingest/wiring.py", LONG_FUNCTION),
    (long_functions, "tests/e2e/test_a.py", LONG_FUNCTION),
    (long_files, "libs/flux_common/src/flux_common/kafka/lanes.py", LONG_FILE),
    (long_files, "tests/e2e/conftest.py", LONG_FILE),
    (modules_without_theory, "libs/flux_common/src/flux_common/kafka/lanes.py", ""),
    (modules_without_theory, "tests/e2e/test_a.py", ""),
    (ambient_input, "services/ingest/src/flux_ingest/handlers/a.py", "import time\n"),
    (ambient_input, "services/ingest/src/flux_ingest/handlers/a.py", "from uuid import uuid4\n"),
    (ambient_input, "services/ingest/src/flux_ingest/handlers/a.py", "import os\nx = os.environ['A']\n"),
    (ambient_input, "services/ingest/src/flux_ingest/domain/a.py", "from datetime import datetime\ndatetime.now()\n"),
    (sql_in_python, "services/ingest/src/flux_ingest/adapters/a.py", 'Q = "SELECT 1 FROM t"\n'),
    (
        sql_in_python,
        "services/ingest/src/flux_ingest/adapters/a.py",
        'Q = f"update {x} set y = 1"\nR = "update t set"\n',
    ),
    (sql_in_python, "services/ingest/src/flux_ingest/adapters/a.py", 'Q = "listen outbox"\n'),
    (broad_excepts, "services/ingest/src/flux_ingest/handlers/a.py", "try:\n    f()\nexcept Exception:\n    pass\n"),
    (broad_excepts, "services/ingest/src/flux_ingest/handlers/a.py", "try:\n    f()\nexcept:\n    pass\n"),
    (vague_names, "services/ingest/src/flux_ingest/adapters/db_utils.py", ""),
    (vague_names, "services/ingest/src/flux_ingest/adapters/a.py", "class LaneManager:\n    pass\n"),
    (impure_imports, "services/ingest/src/flux_ingest/domain/a.py", "import pydantic\n"),
    (impure_imports, "services/ingest/src/flux_ingest/ports.py", "from flux_common.contracts import types\n"),
    (impure_imports, "libs/flux_common/src/flux_common/kernel/a.py", "import structlog\n"),
    (effects_in_domain, "services/audit/src/flux_audit/domain/a.py", "async def f():\n    pass\n"),
    (effects_in_domain, "services/audit/src/flux_audit/domain/a.py", "import logging\n"),
    (effects_in_domain, "services/audit/src/flux_audit/domain/a.py", "@dataclass(slots=True)\nclass A:\n    pass\n"),
    (modules_without_mirror, "services/audit/src/flux_audit/handlers/seal.py", ""),
]


def _tree(root: Path, place: str, text: str) -> list[Source]:
    path = root / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return sources(root)


@pytest.mark.parametrize(("rule", "place", "body"), SEEDS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_rule_finds_a_seeded_violation(tmp_path: Path, rule: Rule, place: str, body: str) -> None:
    """A rule that could not fail would prove nothing: each finds its violation, and says where."""
    text = body if rule is modules_without_theory else THEORY + body
    found = findings(rule, _tree(tmp_path, place, text))

    assert [finding.where for finding in found] == [place]
    assert rule.__doc__


INNOCENT = '''"""SELECT what FROM the past: prose may say so."""
import ast
from dataclasses import dataclass
from flux_common.kernel.ids import run_id
from flux_audit.domain import entry

@dataclass(frozen=True, slots=True)
class Entry:
    """Update the set."""
    text: str = "updates are listed by the manager"

def closed(entry):
    try:
        return entry.text
    except Exception:
        raise
'''


def test_no_rule_finds_fault_with_tidy_code(tmp_path: Path) -> None:
    """Prose that resembles SQL, re-raised errors, the kernel, a mirrored module and its test pass every rule."""
    mirror = tmp_path / "tests/unit/audit/domain/test_a.py"
    mirror.parent.mkdir(parents=True)
    mirror.write_text('"""A test may ask the clock, and the database."""\nimport time\nQUERY = "SELECT 1 FROM t"\n')
    tree = _tree(tmp_path, "services/audit/src/flux_audit/domain/a.py", INNOCENT)

    assert [str(finding) for rule in RULES for finding in findings(rule, tree)] == []


def test_every_rule_is_proved() -> None:
    """No rule stands without a seeded violation."""
    assert {rule for rule, _, _ in SEEDS} == set(RULES)
