"""Every published example is judged by the model and by its committed schema, read by a stock validator, alike.

The name of an invalid example begins with the keyword that it breaks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from flux_common.contracts.catalogue import EVENTS, EventSpec
from flux_common.contracts.envelope import body_bytes
from flux_common.contracts.export import schema_path
from flux_common.contracts.schema import validator_of, violations

FOLDER = Path(__file__).resolve().parents[2] / "schemas/examples"
OF_FOLDER = {spec.name: spec for spec in EVENTS.values()}


def _examples(verdict: str) -> list[Any]:
    return [
        pytest.param(OF_FOLDER[path.parts[-4]], path, id=f"{path.parts[-4]}/{path.stem}")
        for path in sorted(FOLDER.glob(f"*/v1/{verdict}/*.json"))
    ]


def _stock_validator(repository: Path, spec: EventSpec) -> Draft202012Validator:
    schema = json.loads((repository / schema_path(spec)).read_bytes())
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize(("spec", "path"), _examples("valid"))
def test_a_valid_example(repository: Path, spec: EventSpec, path: Path) -> None:
    """Model and schema take it, and what Flux would write of it is valid and means the same."""
    body = spec.model.model_validate_json(path.read_bytes())
    written = body_bytes(body)

    assert list(_stock_validator(repository, spec).iter_errors(json.loads(path.read_bytes()))) == []
    assert list(_stock_validator(repository, spec).iter_errors(json.loads(written))) == []
    assert spec.model.model_validate_json(written) == body


@pytest.mark.parametrize(("spec", "path"), _examples("invalid"))
def test_an_invalid_example(repository: Path, spec: EventSpec, path: Path) -> None:
    """Model and schema refuse it, at one place, for the keyword in its name."""
    document = json.loads(path.read_bytes())
    with pytest.raises(ValidationError):
        spec.model.model_validate_json(path.read_bytes())
    broken = violations(validator_of(spec), document)

    assert not _stock_validator(repository, spec).is_valid(document)
    assert len({pointer for pointer, _ in broken}) == 1
    assert path.stem.split("-")[0] in {keyword for _, keyword in broken}


@pytest.mark.parametrize("spec", EVENTS.values(), ids=lambda spec: spec.name)
def test_every_event_has_examples(spec: EventSpec) -> None:
    """Two valid and three invalid ones at least; and there are no examples of anything else."""
    count = {verdict: len(list((FOLDER / spec.name / "v1" / verdict).glob("*.json"))) for verdict in VERDICTS}

    assert count["valid"] >= 2
    assert count["invalid"] >= 3
    assert {path.parts[-4] for path in FOLDER.glob("*/*/*/*")} <= set(OF_FOLDER)


VERDICTS = ("valid", "invalid")
