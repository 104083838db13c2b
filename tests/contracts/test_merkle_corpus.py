"""The stand-alone verifier agrees with every inclusion and consistency case of transparency-dev/merkle."""

from __future__ import annotations

import base64
import json
import tarfile
from typing import Any

import pytest

from flux_client.verifier import Failure, VerificationFailed, verify_consistency, verify_inclusion
from flux_devkit import home

CORPORA = home.corpora()
ARCHIVE = CORPORA / "merkle-proofs/proofs.tar.gz"
pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"FLUX_CORPORA: no {ARCHIVE.name} (Merkle proof cases)")


def test_every_case_is_judged_as_expected() -> None:
    """All 196 verdicts, 98 of inclusion and 98 of consistency, are the reference's."""
    cases = read_cases()
    verdicts = {name: judged(name, case) for name, case in cases.items()}

    assert [name for name, case in cases.items() if (verdicts[name] is not None) != case["wantErr"]] == []
    assert set(verdicts.values()) == {None, Failure.INCLUSION, Failure.CONSISTENCY, Failure.FORK}
    assert [sum(name.startswith(kind) for name in cases) for kind in ("inclusion/", "consistency/")] == [98, 98]


def read_cases() -> dict[str, Any]:
    with tarfile.open(ARCHIVE) as archive:
        files = [(member.name, archive.extractfile(member)) for member in archive if member.isfile()]
        return {name.removeprefix("./"): json.load(content) for name, content in files if content is not None}


def judged(name: str, case: dict[str, Any]) -> Failure | None:
    """Return why the verifier refuses the case, or None where it accepts."""
    proof = [decoded(one) for one in case["proof"] or []]
    try:
        if name.startswith("inclusion/"):
            root, leaf = decoded(case["root"]), decoded(case["leafHash"])
            verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
        else:
            roots = decoded(case["root1"]), decoded(case["root2"])
            verify_consistency(case["size1"], case["size2"], *roots, proof)
    except VerificationFailed as failed:
        return failed.failure
    return None


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")
