"""Verify what Flux's audit log says, offline: receipts, export bundles, and raw proofs.

Theory. A log is a Merkle tree (RFC 6962 §2.1, RFC 9162 §2.1) over entries in RFC 8785 bytes; its head (origin, size,
root) is a C2SP tlog-checkpoint in a C2SP signed note. This file needs the standard library and `cryptography` alone, and
may be copied to the machine of whoever doubts.
Authority. The verifier keys that *you* give, and the agency you expect. Nothing that came with the evidence is believed
before a key vouches for it: without `--key`, a bundle is compared with itself alone, and the verdict says so.
Failure. `VerificationFailed` with a `Failure`, whose number is the command's exit status (`OSError`: no such file):
    python verifier.py {receipt FILE | bundle FOLDER} --agency AGENCY --key NAME+ID+KEY [--origin O] [--known-head FILE]
A bundle is a folder of `entries.ndjson` (every entry from leaf 0, one a line), `head.txt`, `keys.txt` (one verifier key
a line), `manifest.json`, and, where an earlier head was exported, `previous-head.txt` and `consistency.json`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

HASH_BYTES, SIGNATURES_MAX = 32, 100
ENTRY_BYTES_MAX, NOTE_BYTES_MAX = 64 * 1024, 1024 * 1024
NAME: Final = re.compile(r"[^\s+\x00-\x1f]+")
Verify = Callable[[bytes, bytes], None]  # (signature, text); raises InvalidSignature
T = TypeVar("T")


class Failure(IntEnum):
    """Why something does not verify; the number is the command's exit status."""

    MALFORMED = 10  # not of the form that this file reads, or the manifest says otherwise
    SIGNATURE = 11  # no given key vouches for the head
    ROOT = 12  # the entries do not make the root that was signed
    DENSITY = 13  # an entry is missing, one too many, or out of order
    TENANT = 14  # the log or an entry is another agency's
    CONSISTENCY = 15  # the head does not extend an older one
    INCLUSION = 16  # the entry is not in the tree at that place, or not about that event
    FORK = 17  # two heads of one size and different roots: the log told two stories


class VerificationFailed(Exception):
    """What was to be proven is not; `failure` says in which way, the message what was found."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Head:
    """A tree head: the root over the first `size` leaves of the log `origin`."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Trust:
    """What the caller believes beforehand: verifier keys, whose log it is, signed heads kept from earlier.

    Without `origin`, one that ends in `/agency` will do: a key signs for the origin that is its name, and no other.
    """

    keys: Sequence[str]
    agency: str
    origin: str | None = None
    known_heads: Sequence[bytes] = ()


def verify_receipt(receipt: bytes | str | Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    """Prove that the receipt's entry is that leaf of the agency's log and about the event named; return the entry.

    `receipt`: `{event_id, entry, leaf_index, tree_size, inclusion_proof, tree_head}`; other members are ignored.
    """
    members = receipt if isinstance(receipt, Mapping) else _json_object(receipt, "the receipt")
    head = open_head(_member(members, "tree_head", str).encode(errors="replace"), trust)
    _open_older(trust.known_heads, head, trust)
    text, index = _member(members, "entry", str), _member(members, "leaf_index", int)
    raw = text.encode(errors="replace") if text.startswith("{") else _base64(text)
    _require(_member(members, "tree_size", int) == head.size, Failure.INCLUSION, "tree_size is not the head's size")
    entry = read_entry(raw)
    _require(entry["agency_id"] == trust.agency, Failure.TENANT, "the entry is another agency's")
    _require(entry["seq"] == index, Failure.DENSITY, "the entry's seq is not its leaf index")
    verify_inclusion(leaf_hash(raw), index, head.size, _proof(members, "inclusion_proof"), head.root)
    named = entry["refs"].get("event_id", entry["refs"].get("fact_id"))
    _require(named == _member(members, "event_id", str), Failure.INCLUSION, "the entry is about another event")
    return entry


def verify_bundle(folder: Path, trust: Trust) -> Head:
    """Prove that the bundle holds every entry of the agency's log up to its head; return the head.

    Heads are judged first (signatures, fork, replay), then the entries (tenant, density, root), then what leads from
    the previous and the known head to this one, last the manifest, which nobody signed.
    """
    head = open_head((folder / "head.txt").read_bytes(), trust)
    previous = _open_older([path.read_bytes() for path in folder.glob("previous-head.txt")], head, trust)
    older_heads = previous + _open_older(trust.known_heads, head, trust)
    _require(all(older.size <= head.size for older in older_heads), Failure.CONSISTENCY, "an old head is replayed")
    roots = _judge_entries(folder / "entries.ndjson", trust.agency, head, {older.size for older in older_heads})
    extended = all(roots[older.size] == older.root for older in older_heads)
    _require(extended, Failure.CONSISTENCY, "the log does not extend an older head")
    for older in (one for one in previous if one.size):  # from size 0 there is no proof; its root is compared already
        stated = _json_object((folder / "consistency.json").read_bytes(), "consistency.json")
        sizes = _member(stated, "from_size", int), _member(stated, "to_size", int)
        _require(sizes == (older.size, head.size), Failure.CONSISTENCY, "the proof is between other sizes")
        verify_consistency(*sizes, older.root, head.root, _proof(stated, "proof"))
    _judge_manifest(folder, trust.agency, head, previous)
    return head


def parse_key(text: str) -> tuple[str, bytes, Verify]:
    """Read `name+hex(key id)+base64(algorithm ‖ public key)`: 0x01 Ed25519, or 0x02 ECDSA with an SPKI in DER."""
    name, _, rest = text.partition("+")
    stated_id, _, encoded = rest.partition("+")
    data = _base64(encoded)
    named = data[1:] if data[:1] == b"\x02" else f"{name}\n".encode(errors="replace") + data
    key_id = hashlib.sha256(named).digest()[:4]
    good = NAME.fullmatch(name) and key_id.hex() == stated_id.lower()
    with contextlib.suppress(ValueError, UnsupportedAlgorithm):
        if good and data[:1] == b"\x01":
            return name, key_id, Ed25519PublicKey.from_public_bytes(data[1:]).verify
        if good and data[:1] == b"\x02" and isinstance(key := load_der_public_key(data[1:]), EllipticCurvePublicKey):
            return name, key_id, partial(key.verify, signature_algorithm=ECDSA(SHA256()))
    raise VerificationFailed(Failure.SIGNATURE, "a verifier key is name+id+base64 of an Ed25519 or ECDSA key")


def open_note(note: bytes, keys: Iterable[str]) -> tuple[str, list[str]]:
    """Return a signed note's text and who signed it, by the keys given (c2sp.org/signed-note).

    Unknown signers are ignored; one bad signature of a known key refuses the note; at least one must verify. The
    message of the failure (SIGNATURE) starts with *malformed*, *invalid-signature* or *no-verified-signature*.
    """
    text, lines = _split_note(note)
    known = {(name, key_id): verify for name, key_id, verify in map(parse_key, keys)}
    signers: dict[tuple[str, bytes], str] = {}
    for name, key_id, signature in lines:
        if verify := known.get((name, key_id)):
            try:
                verify(signature, text.encode())
            except InvalidSignature:
                raise VerificationFailed(Failure.SIGNATURE, f"invalid-signature: that of {name!r} is wrong") from None
            signers[name, key_id] = name
    _require(bool(signers), Failure.SIGNATURE, "no-verified-signature: none of the given keys signed")
    return text, list(signers.values())


def parse_head(text: str) -> Head:
    """Read the text of a head (c2sp.org/tlog-checkpoint); extension lines are ignored."""
    lines = text.split("\n")
    root = _base64(lines[2]) if len(lines) > 3 and lines[-1] == "" and "" not in lines[:-1] else b""
    if len(root) != HASH_BYTES or not re.fullmatch("0|[1-9][0-9]{0,19}", lines[1]) or int(lines[1]) >= 2**64:
        raise VerificationFailed(Failure.MALFORMED, "a head is non-empty lines: origin, size, root of 32 bytes")
    return Head(lines[0], int(lines[1]), root)


def open_head(note: bytes, trust: Trust) -> Head:
    """Return the head in a signed note that the log itself signed: with a key whose name is the head's origin."""
    text, signers = open_note(note, trust.keys)
    head = parse_head(text)
    _require(head.origin in signers, Failure.SIGNATURE, "others signed, but not the log itself")
    expected = trust.origin or f"{head.origin.rpartition('/')[0]}/{trust.agency}"
    _require(head.origin == expected, Failure.TENANT, "the head is of another log")
    return head


def leaf_hash(entry: bytes) -> bytes:
    """Return `SHA-256(0x00 ‖ entry)`."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return `SHA-256(0x01 ‖ left ‖ right)`."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def grow(hashes: list[bytes], size: int, leaf: bytes) -> None:
    """Add leaf hash number `size` to a tree kept as the roots of its full subtrees, the largest first."""
    while size & 1:
        size, leaf = size >> 1, node_hash(hashes.pop(), leaf)
    hashes.append(leaf)


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root of a tree kept as the roots of its full subtrees, the largest first."""
    root = hashes[-1] if hashes else hashlib.sha256(b"").digest()
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Prove that `leaf` (a hash) is leaf `index` of the tree (RFC 9162 §2.1.3.2), or raise INCLUSION."""
    wrong = Failure.INCLUSION
    _require(0 <= index < size, wrong, "the tree has no such leaf")
    _require(all(len(one) == HASH_BYTES for one in (leaf, root, *proof)), wrong, "a hash is not 32 bytes")
    _, current = _climb(index, size - 1, leaf, leaf, proof, wrong)
    _require(current == root, wrong, "the proof does not lead to the root")


def verify_consistency(older: int, newer: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Prove that the newer tree extends the older, not empty one (RFC 9162 §2.1.4.2), or raise CONSISTENCY or FORK."""
    wrong = Failure.CONSISTENCY
    _require(0 < older <= newer, wrong, "the older tree is empty or larger than the newer")
    if older == newer:
        _require(not proof, wrong, "trees of one size need no proof")
        _require(old_root == new_root, Failure.FORK, "two roots at one size")
        return
    sound = bool(proof) and all(len(one) == HASH_BYTES for one in (old_root, new_root, *proof))
    _require(sound, wrong, "the proof is empty, or a hash is not 32 bytes")
    path = [old_root, *proof] if older & (older - 1) == 0 else proof
    at, last = older - 1, newer - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old, new = _climb(at, last, path[0], path[0], path[1:], wrong)
    _require(old == old_root and new == new_root, wrong, "the proof does not lead to both roots")


def read_entry(raw: bytes) -> dict[str, Any]:
    """Return the entry whose RFC 8785 form `raw` is."""
    _require(len(raw) <= ENTRY_BYTES_MAX, Failure.MALFORMED, "an entry is larger than 64 KiB")
    entry = _json_object(raw, "an entry")
    canonical = json.dumps(entry, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    _require(canonical.encode(errors="replace") == raw, Failure.MALFORMED, "an entry is not in RFC 8785 form")
    for name, kind in {"agency_id": str, "seq": int, "refs": dict}.items():
        _member(entry, name, kind)
    return entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names, print the verdict as one JSON object, return the exit status."""
    parser = argparse.ArgumentParser(description="Verify a receipt or an export bundle of a Flux audit log, offline.")
    parser.add_argument("what", choices=["receipt", "bundle"])
    parser.add_argument("path", type=Path, help="the receipt (JSON) or the bundle's folder")
    parser.add_argument("--agency", required=True, help="whose log it must be")
    parser.add_argument("--key", action="append", help="a verifier key that you trust (again for more)")
    parser.add_argument("--origin", help="the log's origin; default: any that ends in /AGENCY")
    parser.add_argument("--known-head", type=Path, action="append", default=[], help="a signed head kept from earlier")
    options = parser.parse_args(arguments)
    if options.what == "receipt" and not options.key:
        parser.error("a receipt proves nothing without a --key that you trust")
    try:
        keys = options.key or (options.path / "keys.txt").read_text("utf-8", "replace").splitlines()
        trust = Trust(keys, options.agency, options.origin, [path.read_bytes() for path in options.known_head])
        if options.what == "receipt":
            proven = verify_receipt(options.path.read_bytes(), trust)
        else:
            head = verify_bundle(options.path, trust)
            proven = {"origin": head.origin, "tree_size": head.size, "root": head.root.hex()}
    except (VerificationFailed, OSError) as error:
        failure = error.failure if isinstance(error, VerificationFailed) else Failure.MALFORMED
        print(json.dumps({"verified": False, "failure": failure.name.lower(), "message": str(error)}))
        return int(failure)
    trusted = "given" if options.key else "from the bundle itself"
    print(json.dumps({"verified": True, "keys": trusted, "proven": proven}))
    return 0


def _judge_entries(path: Path, agency: str, head: Head, sizes: set[int]) -> dict[int, bytes]:
    """Judge every entry against the head; return the roots at `sizes`, none of them above the head's.

    Findings are kept until the end, since one altered byte shows in several ways: the most telling one is raised.
    """
    tree, findings, roots, count = list[bytes](), dict[Failure, str](), dict[int, bytes](), 0
    with path.open("rb") as source:
        for line in iter(partial(source.readline, ENTRY_BYTES_MAX + 2), b""):  # a longer line counts as several
            if count in sizes:
                roots[count] = root_of(tree)
            grow(tree, count, leaf_hash(line.removesuffix(b"\n")))
            count += 1
            try:
                entry = read_entry(line.removesuffix(b"\n"))
            except VerificationFailed as failed:
                findings.setdefault(Failure.MALFORMED, f"line {count}: {failed}")
                continue
            if entry["agency_id"] != agency:
                findings.setdefault(Failure.TENANT, f"line {count} is another agency's entry")
            if entry["seq"] != count - 1:
                findings.setdefault(Failure.DENSITY, f"line {count} holds seq {entry['seq']}")
    if count != head.size:
        findings.setdefault(Failure.DENSITY, f"there are {count} entries, but the head says {head.size}")
    if root_of(tree) != head.root:
        findings[Failure.ROOT] = "the entries do not make the signed root"
    for failure in (Failure.TENANT, Failure.DENSITY, Failure.ROOT, Failure.MALFORMED):
        _require(failure not in findings, failure, findings.get(failure, ""))
    return {**roots, count: root_of(tree)}


def _judge_manifest(folder: Path, agency: str, head: Head, previous: Sequence[Head]) -> None:
    expected: dict[str, Any] = {"v": 1, "agency_id": agency, "origin": head.origin, "tree_size": head.size}
    expected |= {"previous_size": previous[0].size if previous else None}
    expected |= {"files": {path.name: _sha256(path) for path in folder.iterdir() if path.name != "manifest.json"}}
    stated = _json_object((folder / "manifest.json").read_bytes(), "manifest.json")
    _require(stated == expected, Failure.MALFORMED, "the manifest says otherwise than the bundle")


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _open_older(notes: Iterable[bytes], head: Head, trust: Trust) -> list[Head]:
    heads = [open_head(note, trust) for note in notes]
    forked = any(one.size == head.size and one.root != head.root for one in heads)
    _require(not forked, Failure.FORK, f"two signed heads of size {head.size} have different roots")
    return heads


def _climb(at: int, last: int, old: bytes, new: bytes, path: Sequence[bytes], wrong: Failure) -> tuple[bytes, bytes]:
    """Fold `path` from node `at` of `last` upwards: `old` over what lies left of it, `new` over everything."""
    for sibling in path:
        _require(last > 0, wrong, "the proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while at and not at & 1:  # this subtree has no right sibling on these levels
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    _require(last == 0, wrong, "the proof is too short")
    return old, new


def _split_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    text = note.decode(errors="replace")
    body, _, block = text.rpartition("\n\n")
    lines = [line.split(" ") for line in block.split("\n")[:-1]]
    good = len(note) <= NOTE_BYTES_MAX and text.encode() == note
    good = good and not any(one < " " and one != "\n" for one in text)
    good = good and "\n\n" in text and block.endswith("\n") and len(lines) <= SIGNATURES_MAX
    good = good and all(len(parts) == 3 and parts[0] == "—" and NAME.fullmatch(parts[1]) for parts in lines)
    read = [(parts[1], _base64(parts[2])) for parts in lines] if good else []
    good = good and all(len(data) > 4 for _, data in read)
    _require(good, Failure.SIGNATURE, "malformed: not a text, an empty line and 1 to 100 signature lines")
    return body + "\n", [(name, data[:4], data[4:]) for name, data in read]


def _base64(encoded: str) -> bytes:
    """Decode base64 (RFC 4648 §4) written in its one canonical way; nothing for anything else."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        return b""
    return data if base64.b64encode(data).decode() == encoded else b""


def _member(members: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = members.get(name)
    if type(value) is kind and not (isinstance(value, int) and value < 0):
        return value
    raise VerificationFailed(Failure.MALFORMED, f"{name} is missing, or not of its type")


def _proof(members: Mapping[str, Any], name: str) -> list[bytes]:
    return [_base64(str(one)) for one in _member(members, name, list)]


def _json_object(text: bytes | str, what: str) -> dict[str, Any]:
    """Parse strictly: UTF-8, no repeated name, whole numbers, an object."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VerificationFailed(Failure.MALFORMED, f"{what} is not a strict JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs) if len(dict(pairs)) == len(pairs) else _refuse("a repeated name")


def _refuse(what: str) -> Any:
    raise ValueError(what)


def _require(holds: bool, failure: Failure, message: str) -> None:
    if not holds:
        raise VerificationFailed(failure, message)


if __name__ == "__main__":
    sys.exit(main())
