"""The verifier accepts what the audit service's own domain makes, and tells apart every way of cheating with it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flux_audit.adapters.signer import TreeHeadSigner
from flux_audit.domain.entry import Fact, entry_bytes
from flux_audit.domain.merkle import Frontier, append, consistency_plan, frontier_of, inclusion_plan, leaf_hash
from flux_audit.domain.tree_head import TreeHead, log_origin, read_note, signed_note
from flux_client import verifier
from flux_client.verifier import Failure, Trust, VerificationFailed, main, verify_bundle, verify_receipt

SIGNER = TreeHeadSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STRANGER = TreeHeadSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


class Log:
    """An agency's log as the service keeps it; `story` makes logs that differ in what they say."""

    def __init__(self, agency: str = "nasa", size: int = 11, story: str = "true") -> None:
        self.agency, self.origin = agency, log_origin("flux.example", agency)
        self.use([entry_bytes(self.fact(number, story), number) for number in range(size)])

    def use(self, entries: Sequence[bytes]) -> None:
        self.entries = list(entries)
        self.stored = {node.at: node.hash for node in append(Frontier(), map(leaf_hash, entries)).nodes}

    def fact(self, number: int, story: str) -> Fact:
        refs = {"event_id": f"event-{number}", "story": story}
        src = {"service": "ingest", "offset": number}
        digest = hashlib.sha256(story.encode()).hexdigest()
        return Fact(f"fact-{number}", self.agency, "2026-11-24T10:00:00.125Z", "run.accepted", "ok", src, digest, refs)

    def head(self, size: int, signer: TreeHeadSigner = SIGNER) -> str:
        return signer.sign(TreeHead(self.origin, size, frontier_of(size, self.stored).root))

    def trust(self, **more: Any) -> Trust:
        return Trust([SIGNER.verifier_key(self.origin)], self.agency, **more)

    def receipt(self, index: int, size: int, **changes: Any) -> dict[str, Any]:
        proof = inclusion_plan(index, size).fold(self.stored)
        return {
            "event_id": f"event-{index}",
            "entry": base64.b64encode(self.entries[index]).decode(),
            "leaf_index": index,
            "tree_size": size,
            "inclusion_proof": [base64.b64encode(one).decode() for one in proof],
            "tree_head": self.head(size),
            **changes,
        }

    def export(self, folder: Path, older: int | None = None, **files: str | bytes) -> Path:
        """Write a bundle of the whole log; `files` replaces what stands in some of them. The manifest always agrees."""
        size = len(self.entries)
        contents: dict[str, str | bytes] = {
            "entries.ndjson": b"".join(entry + b"\n" for entry in self.entries),
            "head.txt": self.head(size),
            "keys.txt": SIGNER.verifier_key(self.origin) + "\n",
        }
        if older is not None:
            contents["previous-head.txt"] = self.head(older)
        if older:
            proof = [base64.b64encode(one).decode() for one in consistency_plan(older, size).fold(self.stored)]
            contents["consistency.json"] = json.dumps({"from_size": older, "to_size": size, "proof": proof})
        contents |= {name.replace("_", "-").replace("0", "."): content for name, content in files.items()}
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        size = read_note((folder / "head.txt").read_text())[0].size
        write_manifest(folder, agency_id=self.agency, origin=self.origin, tree_size=size, previous_size=older)
        return folder


def write_manifest(folder: Path, **stated: Any) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    files.pop("manifest.json", None)
    (folder / "manifest.json").write_text(json.dumps({"v": 1, **stated, "files": files}))


def failure(judge: Callable[..., object], *arguments: Any) -> Failure | None:
    try:
        judge(*arguments)
    except VerificationFailed as failed:
        return failed.failure
    return None


def test_every_receipt_of_every_head_verifies() -> None:
    """Each leaf under each head that covers it is proven, and the entry comes back."""
    log = Log()
    for size in range(1, 12):
        for index in range(size):
            assert verify_receipt(log.receipt(index, size), log.trust())["seq"] == index


def test_a_receipt_may_come_as_text_with_the_entry_as_json() -> None:
    """The whole receipt may be JSON bytes or text, and the entry its canonical text instead of base64."""
    log = Log()
    receipt = log.receipt(4, 11, entry=log.entries[4].decode())

    assert verify_receipt(json.dumps(receipt), log.trust()) == verify_receipt(json.dumps(receipt).encode(), log.trust())


def test_a_receipt_of_a_fact_that_names_no_event_is_about_the_fact() -> None:
    """Where the fact attests no other event, its own id is what the receipt must name."""
    log = Log(size=1)
    log.use([entry_bytes(replace(log.fact(0, "true"), refs={}), 0)])

    assert failure(verify_receipt, log.receipt(0, 1, event_id="fact-0"), log.trust()) is None
    assert failure(verify_receipt, log.receipt(0, 1), log.trust()) is Failure.INCLUSION


def test_one_flipped_bit_anywhere_in_a_receipt_is_caught() -> None:
    """No single bit of a receipt can be changed without being noticed."""
    log = Log()
    text = json.dumps(log.receipt(4, 11)).encode()
    for at in range(len(text)):
        flipped = text[:at] + bytes([text[at] ^ 1 << at % 8]) + text[at + 1 :]
        assert failure(verify_receipt, flipped, log.trust()) is not None, (at, flipped)


LOG, OTHER, FORKED = Log(), Log("library-of-congress"), Log(story="another")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tree_head": LOG.head(11, STRANGER)}, Failure.SIGNATURE),
        ({"tree_head": LOG.head(11) + "\n"}, Failure.SIGNATURE),
        ({"tree_head": LOG.head(11).replace("\n11\n", "\n12\n")}, Failure.SIGNATURE),
        ({"tree_head": LOG.head(10)}, Failure.INCLUSION),
        ({"tree_size": 10}, Failure.INCLUSION),
        ({"leaf_index": 5}, Failure.DENSITY),
        ({"entry": LOG.entries[5].decode(), "leaf_index": 5}, Failure.INCLUSION),
        ({"entry": LOG.entries[4].decode().replace("true", "lies")}, Failure.INCLUSION),
        ({"entry": OTHER.entries[4].decode()}, Failure.TENANT),
        ({"event_id": "event-5"}, Failure.INCLUSION),
        ({"inclusion_proof": LOG.receipt(4, 11)["inclusion_proof"][:-1]}, Failure.INCLUSION),
        ({"inclusion_proof": [*LOG.receipt(4, 11)["inclusion_proof"], "A" * 43 + "="]}, Failure.INCLUSION),
        ({"inclusion_proof": [7]}, Failure.INCLUSION),
        ({"inclusion_proof": "proof"}, Failure.MALFORMED),
        ({"leaf_index": True}, Failure.MALFORMED),
        ({"leaf_index": -1}, Failure.MALFORMED),
        ({"entry": "no base64"}, Failure.MALFORMED),
        ({"entry": " " + LOG.entries[4].decode()}, Failure.MALFORMED),
        ({"entry": "{" + '"a":' * 30_000}, Failure.MALFORMED),
        ({"entry": LOG.entries[4].decode().replace('"v":1', '"v": 1')}, Failure.MALFORMED),
        ({"entry": '{"x":"' + "x" * verifier.ENTRY_BYTES_MAX + '"}'}, Failure.MALFORMED),
        ({"tree_head": None}, Failure.MALFORMED),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_lie_in_a_receipt_has_its_failure(changes: dict[str, Any], expected: Failure) -> None:
    """A receipt that is altered in one way fails in that way."""
    assert failure(verify_receipt, LOG.receipt(4, 11, **changes), LOG.trust()) is expected


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":1,"a":1}', '{"a":NaN}', '{"a":0.5}', b"\xff"], ids=repr)
def test_a_receipt_that_is_no_strict_json_is_malformed(text: str | bytes) -> None:
    """Repeated names, numbers that are not whole and whatever is no object are refused before anything else."""
    assert failure(verify_receipt, text, LOG.trust()) is Failure.MALFORMED


def test_a_receipt_of_another_agency_does_not_pass() -> None:
    """With the other's key it is another tenant's, without it nobody vouches."""
    both = Trust([SIGNER.verifier_key(LOG.origin), SIGNER.verifier_key(OTHER.origin)], "nasa")

    assert failure(verify_receipt, OTHER.receipt(4, 11), both) is Failure.TENANT
    assert failure(verify_receipt, OTHER.receipt(4, 11), LOG.trust()) is Failure.SIGNATURE
    assert failure(verify_receipt, LOG.receipt(4, 11), LOG.trust(origin="flux.example/else")) is Failure.TENANT


def test_a_receipt_from_a_forked_log_is_caught_by_a_kept_head() -> None:
    """Two heads of one size with different roots are a fork; a kept head of another size says nothing here."""
    receipt = FORKED.receipt(4, 11)

    assert failure(verify_receipt, receipt, LOG.trust(known_heads=[LOG.head(11).encode()])) is Failure.FORK
    assert failure(verify_receipt, receipt, LOG.trust(known_heads=[LOG.head(10).encode()])) is None


def test_witnesses_add_to_the_log_but_never_replace_it() -> None:
    """A cosigned head passes, a wrong cosignature of a known witness refuses it, a witness alone is not the log."""
    head, own = read_note(LOG.head(11))
    cosigned = read_note(STRANGER.sign(TreeHead("witness", 11, head.root)))[1][0]
    good = replace(cosigned, signature=STRANGER._key.sign(head.text.encode()))
    trust = Trust([SIGNER.verifier_key(LOG.origin), STRANGER.verifier_key("witness")], "nasa")
    notes = [signed_note(head.text, lines) for lines in ([*own, good], [*own, cosigned], [good])]

    assert [failure(verify_receipt, LOG.receipt(4, 11, tree_head=note), trust) for note in notes] == [
        None,
        Failure.SIGNATURE,
        Failure.SIGNATURE,
    ]


@pytest.mark.parametrize(("size", "older"), [(0, None), (0, 0), (1, 0), (11, None), (11, 0), (11, 4), (11, 11)])
def test_a_whole_log_verifies(tmp_path: Path, size: int, older: int | None) -> None:
    """A bundle proves the log, alone or as the continuation of an older head, the empty one included."""
    log = Log(size=size)
    head = verify_bundle(log.export(tmp_path / "bundle", older), log.trust())

    assert (head.origin, head.size, head.root) == (log.origin, size, frontier_of(size, log.stored).root)


def test_one_flipped_bit_anywhere_in_a_bundle_is_caught(tmp_path: Path) -> None:
    """No bit of any file can be changed without being noticed (every third byte is tried, each with one of its bits)."""
    log = Log(size=5)
    folder = log.export(tmp_path / "bundle", older=3)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), 3):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            assert failure(verify_bundle, folder, log.trust()) is not None, (path.name, at)
        path.write_bytes(whole)

    assert failure(verify_bundle, folder, log.trust()) is None


def lines(entries: Sequence[bytes]) -> bytes:
    return b"".join(entry + b"\n" for entry in entries)


def renumbered(entries: Sequence[bytes]) -> bytes:
    read = [json.loads(entry) | {"seq": number} for number, entry in enumerate(entries)]
    return lines([json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() for entry in read])


E = LOG.entries


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param(lines(E).replace(b"true", b"trud", 1), Failure.ROOT, id="one flipped bit"),
        pytest.param(lines([*E[:4], *E[5:]]), Failure.DENSITY, id="deletion"),
        pytest.param(renumbered([*E[:4], *E[5:]]), Failure.DENSITY, id="deletion, renumbered"),
        pytest.param(renumbered([*E[:4], *E[5:], E[4]]), Failure.ROOT, id="moved to the end, renumbered"),
        pytest.param(lines([*E[:4], E[4], *E[4:]]), Failure.DENSITY, id="insertion"),
        pytest.param(renumbered([*E, E[4]]), Failure.DENSITY, id="addition, renumbered"),
        pytest.param(lines([*E[:4], E[5], E[4], *E[6:]]), Failure.DENSITY, id="reorder"),
        pytest.param(lines(E[:-1]), Failure.DENSITY, id="truncation"),
        pytest.param(lines(E)[:-20], Failure.ROOT, id="truncation inside the last entry"),
        pytest.param(b"", Failure.DENSITY, id="nothing left"),
        pytest.param(lines(FORKED.entries), Failure.ROOT, id="entries of a forked log"),
        pytest.param(lines(OTHER.entries), Failure.TENANT, id="entries of another agency"),
        pytest.param(lines([*E[:4], OTHER.entries[4], *E[5:]]), Failure.TENANT, id="one leaf of another agency"),
        pytest.param(lines([*E[:4], b"x" * 200_000, *E[5:]]), Failure.DENSITY, id="an endless line"),
    ],
)
def test_each_lie_about_entries_has_its_failure(tmp_path: Path, entries: bytes, expected: Failure) -> None:
    """What is done to the entries shows, even where the manifest was made to agree."""
    assert failure(verify_bundle, LOG.export(tmp_path / "bundle", entries0ndjson=entries), LOG.trust()) is expected


def test_a_leaf_of_another_agency_under_the_log_s_own_signature_is_caught(tmp_path: Path) -> None:
    """A log that sealed a stranger's entry, or an entry that is none, signed it, and is still refused."""
    for strange, expected in ((OTHER.entries[4], Failure.TENANT), (b"{}", Failure.MALFORMED)):
        log = Log()
        log.use([*E[:4], strange, *E[5:]])

        assert failure(verify_bundle, log.export(tmp_path / "bundle"), log.trust()) is expected


def test_heads_that_nobody_trusted_signed_are_refused(tmp_path: Path) -> None:
    """A stranger's signature on the head or on the previous head counts for nothing."""
    for name in ("head0txt", "previous_head0txt"):
        size = 11 if name == "head0txt" else 4
        folder = LOG.export(tmp_path / "bundle", 4, **{name: LOG.head(size, STRANGER)})

        assert failure(verify_bundle, folder, LOG.trust()) is Failure.SIGNATURE


def test_a_fork_of_equal_size_is_caught(tmp_path: Path) -> None:
    """Another story of the same size, entries and signature in order, is a fork against the head that was kept."""
    folder = FORKED.export(tmp_path / "bundle")
    kept = LOG.trust(known_heads=[LOG.head(11).encode()])

    assert failure(verify_bundle, folder, kept) is Failure.FORK
    assert failure(verify_bundle, folder, LOG.trust()) is None  # without memory nobody could tell


def test_a_rewritten_past_is_caught(tmp_path: Path) -> None:
    """A longer log that does not extend the kept or the previous head is refused, whatever its signature."""
    kept = LOG.trust(known_heads=[LOG.head(7).encode()])

    assert failure(verify_bundle, FORKED.export(tmp_path / "one"), kept) is Failure.CONSISTENCY
    previous = FORKED.export(tmp_path / "two", 7, previous_head0txt=LOG.head(7))
    assert failure(verify_bundle, previous, LOG.trust()) is Failure.CONSISTENCY


def test_an_old_head_replayed_is_caught(tmp_path: Path) -> None:
    """An older state of the log, true in itself, is refused by whoever knows a newer head."""
    old = Log(size=7).export(tmp_path / "bundle")

    assert failure(verify_bundle, old, LOG.trust(known_heads=[LOG.head(11).encode()])) is Failure.CONSISTENCY
    assert failure(verify_bundle, old, LOG.trust(known_heads=[LOG.head(7).encode(), LOG.head(0).encode()])) is None
    replayed = LOG.export(tmp_path / "other", 4, head0txt=LOG.head(4), previous_head0txt=LOG.head(11))
    assert failure(verify_bundle, replayed, LOG.trust()) is Failure.CONSISTENCY


@pytest.mark.parametrize(
    "stated",
    [
        {"from_size": 4, "to_size": 11, "proof": []},
        {"from_size": 4, "to_size": 11, "proof": ["A" * 43 + "="] * 4},
        {"from_size": 5, "to_size": 11, "proof": []},
        {"from_size": 4, "to_size": 12, "proof": []},
    ],
    ids=repr,
)
def test_a_wrong_consistency_proof_is_refused(tmp_path: Path, stated: dict[str, Any]) -> None:
    """The proof must be between the two heads and lead to both roots, though the entries would show the same."""
    folder = LOG.export(tmp_path / "bundle", 4, consistency0json=json.dumps(stated))

    assert failure(verify_bundle, folder, LOG.trust()) is Failure.CONSISTENCY


@pytest.mark.parametrize(
    "change", [{"tree_size": 10}, {"agency_id": "esa"}, {"v": 2}, {"more": 1}, {"files": {}}], ids=repr
)
def test_a_manifest_that_says_otherwise_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Nobody signs the manifest, so it may say nothing but what was proven."""
    folder = LOG.export(tmp_path / "bundle")
    stated = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(stated | change))

    assert failure(verify_bundle, folder, LOG.trust()) is Failure.MALFORMED


def test_raw_consistency_proofs_are_judged_strictly() -> None:
    """For every pair of sizes, the proof leads to these two roots, from these sizes, and is whole; nothing else is."""
    roots = [frontier_of(size, LOG.stored).root for size in range(12)]
    for newer in range(2, 12):
        for older in range(1, newer):
            proof = consistency_plan(older, newer).fold(LOG.stored)
            good = (older, newer, roots[older], roots[newer], proof)
            bad = [
                (older, newer, roots[0], roots[newer], proof),
                (older, newer, roots[older], roots[0], proof),
                (older, newer, roots[older], roots[newer], proof[:-1]),
                (older, newer, roots[older], roots[newer], [*proof, roots[0]]),
                (older, newer, roots[older], roots[newer], [*proof[:-1], proof[-1][:31]]),
                (0, newer, roots[0], roots[newer], proof),
                (0, newer, roots[0], roots[newer], []),
            ]

            assert failure(verifier.verify_consistency, *good) is None
            assert {failure(verifier.verify_consistency, *one) for one in bad} == {Failure.CONSISTENCY}
    assert failure(verifier.verify_consistency, 11, 11, roots[11], roots[10], []) is Failure.FORK


def test_the_command_tells_each_failure_by_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Success is 0, a failure its own number, and the verdict one JSON object that says which keys were trusted."""
    folder, kept = FORKED.export(tmp_path / "bundle"), tmp_path / "kept.txt"
    kept.write_text(LOG.head(11))
    bundle = ["bundle", str(folder), "--agency", "nasa"]
    runs = {
        "the bundle's own keys": (bundle, 0, "from the bundle itself"),
        "a given key": ([*bundle, "--key", SIGNER.verifier_key(LOG.origin)], 0, '"keys": "given"'),
        "a stranger's key": ([*bundle, "--key", STRANGER.verifier_key(LOG.origin)], 11, '"failure": "signature"'),
        "a kept head": ([*bundle, "--known-head", str(kept)], 17, '"failure": "fork"'),
        "another agency": (["bundle", str(folder), "--agency", "esa"], 14, '"failure": "tenant"'),
        "no such folder": (["bundle", str(tmp_path / "none"), "--agency", "nasa"], 10, '"failure": "malformed"'),
    }
    for name, (arguments, status, said) in runs.items():
        assert (main(arguments), said in capsys.readouterr().out) == (status, True), name


def test_a_receipt_without_a_trusted_key_is_a_mistake_of_use(tmp_path: Path) -> None:
    """The command refuses to say anything about a receipt where no key is given."""
    with pytest.raises(SystemExit, match="2"):
        main(["receipt", str(tmp_path / "receipt.json"), "--agency", "nasa"])


def test_the_file_alone_is_the_verifier(tmp_path: Path) -> None:
    """Copied away from Flux and run by itself, it verifies a receipt, and refuses an altered one."""
    script = shutil.copy(verifier.__file__, tmp_path / "verify.py")
    key = ["--agency", "nasa", "--key", SIGNER.verifier_key(LOG.origin)]
    statuses = []
    for name, receipt in {"good": LOG.receipt(4, 11), "bad": LOG.receipt(4, 11, event_id="event-5")}.items():
        (tmp_path / name).write_text(json.dumps(receipt))
        statuses.append(subprocess.run([sys.executable, "-I", script, "receipt", tmp_path / name, *key]).returncode)

    imports = re.findall(r"^(?:from|import) (\w+)", Path(script).read_text(), re.MULTILINE)
    assert statuses == [0, int(Failure.INCLUSION)]
    assert set(imports) - sys.stdlib_module_names == {"cryptography"}
