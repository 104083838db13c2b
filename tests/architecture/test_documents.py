"""The documents lead somewhere and say what is there: links, files, tests, commands, settings, metrics, codes, probes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from flux_audit.settings import AuditSettings
from flux_checkpoint.settings import CheckpointSettings
from flux_client.cli.app import app
from flux_client.verifier import Failure
from flux_common.kernel.codes import Code
from flux_common.observability import metrics
from flux_common.runtime.service import ExitCode
from flux_common.settings.loading import describe
from flux_ingest.settings import IngestSettings
from flux_transform.settings import TransformSettings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = [path for top in ("libs", "services") for path in ROOT.glob(f"{top}/*/src/*") if path.is_dir()]
REFERENCE = (
    "semantics", "protocol", "trust", "threat-model", "multi-tenancy", "fedramp", "audit", "data-plane", "kafka-facts",
    "operations",
)  # fmt: skip
CODE = sorted(
    [path for package in PACKAGES for suffix in ("py", "sql") for path in package.rglob(f"*.{suffix}")]
    + [path for name in ("Makefile", "Dockerfile", "compose.yaml", "pyproject.toml") if (path := ROOT / name).exists()]
)
LINES_MAX = 220


def reference(name: str) -> str:
    """Return the text of a reference document."""
    return (ROOT / f"docs/{name}.md").read_text()


def _prose(text: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(document: Path) -> None:
    """A relative link leads to a file or folder of this repository."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", _prose(document.read_text()))
    dead = [link for link in links if "://" not in link and not (document.parent / link).exists()]

    assert dead == []


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", *(f"docs/{name}.md" for name in REFERENCE[:-1])])
def test_named_files_are_there(document: str) -> None:
    """A Python or SQL file that a document names is one of the repository, or of a package in it."""
    text = _prose((ROOT / document).read_text())
    named = {name for name in re.findall(r"`([\w./-]+\.(?:py|sql))\b", text) if not name.startswith("<")}
    roots = [ROOT, *PACKAGES, *(package.parent for package in PACKAGES)]

    assert named
    assert [name for name in sorted(named) if not any((root / name).exists() for root in roots)] == []


@pytest.mark.parametrize("name", REFERENCE)
def test_named_tests_are_there(name: str) -> None:
    """A test that a reference document names by file and function exists."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", reference(name))

    assert [f"{file}::{test}" for file, test in named if test not in _tests(ROOT / file)] == []


@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_document_is_short_and_found(name: str) -> None:
    """It fits a few screens, and README and ARCHITECTURE lead to it."""
    assert len(reference(name).splitlines()) <= LINES_MAX
    assert f"](docs/{name}.md)" in (ROOT / "README.md").read_text()
    assert f"docs/{name}.md" in (ROOT / "ARCHITECTURE.md").read_text()


def test_documents_that_code_cites_are_there() -> None:
    """A citation in the code is a path from the repository's root (`docs/<name>.md`); other folders are other projects'."""
    cited = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in CODE
        for name in re.findall(r"(?<![\w/.*-])((?:docs/(?:[\w-]+/)*)?[\w-]+\.md)\b", path.read_text())
    ]

    assert len(cited) > 20
    assert [f"{where}: {name}" for where, name in cited if not (ROOT / name).is_file()] == []


def test_the_architecture_maps_every_folder() -> None:
    """Each folder at the top that holds code or documents is in the map, and each room of flux_common too."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    rooms = {path.parent.name for path in (ROOT / "libs/flux_common/src/flux_common").glob("*/*.py")}

    assert [name for name in sorted(folders) if not re.search(rf"^{name}/", text, re.M)] == []
    assert [name for name in sorted(rooms) if not re.search(rf"^  {name} ", text, re.M)] == []


def test_commands_are_there() -> None:
    """Each `flux-etl` command that a document names is one."""
    tree = typer.main.get_command(app)
    named = {
        (document.name, words)
        for document in DOCUMENTS
        for words in re.findall(r"flux-etl ((?:[a-z-]+ ?)+)", document.read_text().replace("--help", ""))
    }

    assert len(named) > 10
    assert sorted(f"{where}: flux-etl {words}" for where, words in named if not _leads(tree, words.split())) == []


def _leads(command: Any, words: list[str]) -> bool:
    """Tell whether the words lead to a command, or into its arguments."""
    commands: dict[str, Any] | None = getattr(command, "commands", None)
    return commands is None or (bool(words) and words[0] in commands and _leads(commands[words[0]], words[1:]))


def test_settings_are_there() -> None:
    """Each variable that a document names is a setting of a service, or is read by other code; `…_*` names a section."""
    sets = (IngestSettings, CheckpointSettings, TransformSettings, AuditSettings)
    known = {setting.env for settings in sets for setting in describe(settings)}
    text = "".join(path.read_text() for path in [*CODE, *ROOT.glob("deploy/**/*.py")])
    prefixes = set(re.findall(r'env_prefix="(FLUX_[A-Z_]+)"', text))
    known |= {name for name in re.findall(r"\bFLUX_[A-Z0-9_]+\b", text) if name not in prefixes}
    known |= {f"{prefix}{name}" for prefix in prefixes for name in ("DSN", "PASSWORD_FILE")}
    named = {name for document in DOCUMENTS for name in re.findall(r"\bFLUX_[A-Z0-9_]+\*?", document.read_text())}

    assert sorted(name for name in named if name not in known and name.removesuffix("*") not in prefixes) == []


def test_the_metrics_are_those_of_the_code() -> None:
    """docs/operations.md names every metric as a query writes it, and no other; what nothing writes is marked so."""
    text = reference("operations")
    section = text.split("## Metrics")[1].split("\n## ")[0]
    named = re.findall(r"`(flux_[a-z_]+)`", section)
    silent = set(re.findall(r"`(flux_[a-z_]+)` \| reserved; nothing writes it yet", section))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics.names()}

    assert sorted(named) == sorted(families)
    assert silent == {name for name in families if not _is_written(name)}
    assert set(re.findall(r"`(flux_[a-z_]+)`", "".join(map(reference, REFERENCE)))) <= families | set(_schemas())


def _is_written(metric: str) -> bool:
    """Tell whether any code names the variable that holds a metric."""
    path = Path(metrics.__file__)
    stem = re.sub(r"_(total|info)$", "", metric)
    found = re.search(rf'^(\w+) = \w+\(\s*"{stem}(?:_total)?"', path.read_text(), re.M)
    assert found, metric
    return any(re.search(rf"\bmetrics\.{found[1]}\b", code.read_text()) for code in CODE if code != path)


def _schemas() -> Iterator[str]:
    """Yield what else begins so: packages, roles, schemas."""
    yield from (package.name for package in PACKAGES)
    yield from re.findall(
        r"\bflux_[a-z_]+\b", (ROOT / "libs/flux_common/src/flux_common/postgres/roles.sql").read_text()
    )


def test_codes_are_those_of_the_code() -> None:
    """Whatever looks like a code in docs/trust.md is one, and each code of intake stands there."""
    text = reference("trust")
    named = set(re.findall(r"\b(?!FLUX_)[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text))
    codes = [code.value for code in Code]

    assert sorted(named - set(codes)) == []
    assert [code for code in codes[: codes.index(Code.SOURCE_EMPTY)] if code not in named] == []


@pytest.mark.parametrize("name", REFERENCE)
def test_backticked_codes_are_those_of_the_code(name: str) -> None:
    """A word in capitals with an underscore, between backticks, is a code or a name in the code."""
    words = set(re.findall(r"`((?!FLUX_)[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`", reference(name))) - set(Code.__members__)
    text = "".join(path.read_text() for path in CODE)

    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", text)] == []


def test_probes_are_those_of_the_suite() -> None:
    """docs/kafka-facts.md has a row for each probe, and names no other."""
    rows = re.findall(r"^\|[^|]+\|[^|]+\| `(test_\w+)` \|[^|]+\|$", reference("kafka-facts"), re.M)
    probes = {test for path in ROOT.glob("tests/integration/probes/test_*.py") for test in _tests(path)}

    assert len(probes) > 10
    assert sorted(rows) == sorted(probes)


def test_exit_codes_are_those_of_the_code() -> None:
    """The tables of exit codes are the verifier's failures and a service's ends."""
    verifier = dict(re.findall(r"^\| (1\d) \| (\w+) \|", reference("audit"), re.M))
    service = re.findall(r"^\| (\d) \| ", reference("operations"), re.M)

    assert verifier == {str(failure.value): failure.name.lower() for failure in Failure}
    assert service == [str(code.value) for code in ExitCode]


def _tests(path: Path) -> set[str]:
    """Return the test functions of a file; none if there is no such file."""
    if not path.is_file():
        return set()
    nodes = ast.walk(ast.parse(path.read_text()))
    return {
        n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name.startswith("test_")
    }
