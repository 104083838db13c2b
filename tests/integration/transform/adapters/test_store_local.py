"""Files of this machine as source and destination: one behavioural suite for both adapters, and what only files can do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_common.kernel.codes import Code
from flux_transform.adapters.store import Access, OpenStores
from flux_transform.adapters.store_local import LocalDestination, LocalSource
from flux_transform.domain.failures import NotStored, Rejected, WorkFailed
from flux_transform.domain.items import Item, Job
from flux_transform.domain.plan import Listed, PlannedObject
from flux_transform.ports import Destination, Source

RUN = "11111111-1111-5111-8111-111111111111"
Place = tuple[Source, Destination, Callable[[str, bytes], None], Callable[[str], None]]


@pytest.fixture(params=["file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a source, a destination, and how to put an object into the source and take it away."""
    if request.param == "file":
        (tmp_path / "in").mkdir()
        base = f"file://{tmp_path}"
        stores = OpenStores(Access(file_roots=(tmp_path,)))
    else:
        base = "memory://bucket"
        stores = OpenStores(Access(memory=True))
    item = Item("nasa", RUN, "r", 1, "plan", 0, 1, Job(f"{base}/in", f"{base}/out", "text", "research"))
    if request.param == "file":

        def put(key: str, data: bytes) -> None:
            path = tmp_path / "in" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        def drop(key: str) -> None:
            (tmp_path / "in" / key).unlink()
    else:
        memory = stores._store("memory://bucket")[0]

        def put(key: str, data: bytes) -> None:
            memory.put(f"in/{key}", data)

        def drop(key: str) -> None:
            memory.delete(f"in/{key}")

    return stores.source(item), stores.destination(item), put, drop


async def listed(source: Source) -> dict[str, Listed]:
    """Return all objects by key."""
    return {found.key: found async for page in source.list() for found in page}


def planned(found: Listed) -> PlannedObject:
    """Return an object as planned from its listing."""
    return PlannedObject(found.key, found.size, found.etag, "", 0)


async def code(source: Source, wanted: PlannedObject) -> Code:
    """Return the code with which an object is rejected."""
    with pytest.raises(Rejected) as reject:
        await source.fetch(wanted)
    return reject.value.code


async def test_objects_are_listed_below_the_uri_and_fetched_as_listed(place: Place) -> None:
    """Keys are relative, with slashes; sizes are bytes; what was listed can be fetched."""
    source, _, put, _ = place
    put("a.txt", b"alpha")
    put("box/b.txt", b"")

    found = await listed(source)

    assert {key: entry.size for key, entry in found.items()} == {"a.txt": 5, "box/b.txt": 0}
    assert await source.fetch(planned(found["a.txt"])) == b"alpha"
    assert await source.fetch(planned(found["box/b.txt"])) == b""


async def test_an_object_that_changed_or_went_is_a_reject(place: Place) -> None:
    """Another content of the same size, another size, and nothing at all: SOURCE_CHANGED."""
    source, _, put, drop = place
    for key in ("same-size", "longer", "gone"):
        put(key, b"alpha")
    found = await listed(source)
    put("same-size", b"omega")
    put("longer", b"alphabet")
    drop("gone")

    codes = [await code(source, planned(found[key])) for key in ("same-size", "longer", "gone")]

    assert codes == [Code.SOURCE_CHANGED] * 3


async def test_a_file_is_stored_once_and_the_same_again_is_a_success(place: Place) -> None:
    """Create-only: equal content passes, other content is a conflict and changes nothing."""
    _, destination, _, _ = place
    await destination.put("data/a.bin", b"alpha")

    await destination.put("data/a.bin", b"alpha")
    with pytest.raises(WorkFailed) as failed:
        await destination.put("data/a.bin", b"omega")

    assert failed.value.code == Code.CHAIN_CORRUPT
    assert await destination.get("data/a.bin") == b"alpha"


async def test_a_file_can_be_replaced(place: Place) -> None:
    """For the names that are only a convenience."""
    _, destination, _, _ = place
    for content in (b"one", b"two"):
        await destination.replace("readme", content)

    assert await destination.get("readme") == b"two"


async def test_parts_of_a_file_can_be_read(place: Place) -> None:
    """A range, the tail with the size, and a tail longer than the file."""
    _, destination, _, _ = place
    await destination.put("plan", b"0123456789")

    found = [await destination.get_range("plan", 2, 5), *await destination.get_tail("plan", 3)]

    assert found == [b"234", b"789", 10]
    assert await destination.get_tail("plan", 100) == (b"0123456789", 10)


async def test_a_missing_file_says_so(place: Place) -> None:
    """Every way of reading raises the same."""
    _, destination, _, _ = place

    for reading in (destination.get("x"), destination.get_range("x", 0, 1), destination.get_tail("x", 1)):
        with pytest.raises(NotStored):
            await reading


ODD_NAMES = ["new\nline", "\x7fdel", "a*b?c#d%41", "ü", "u\u0308", ".hidden", "back\\slash", " ", "…" * 50]


async def test_names_that_archives_have_can_be_listed_and_fetched(tmp_path: Path) -> None:
    """Control characters, composed and decomposed letters, blanks: all are keys."""
    for name in ODD_NAMES:
        (tmp_path / name).write_bytes(name.encode())
    source = LocalSource.open(tmp_path, (tmp_path,))

    found = await listed(source)

    assert found.keys() == set(ODD_NAMES)
    assert {key: await source.fetch(planned(entry)) for key, entry in found.items()} == {
        name: name.encode() for name in ODD_NAMES
    }


async def test_a_name_that_is_not_utf8_is_planned_and_rejected(tmp_path: Path) -> None:
    """One such name does not hide the others; it is listed in an escaped form and counted."""
    for name in ("a", os.fsdecode(b"\xff.txt")):
        (tmp_path / name).write_bytes(b"x")
    source = LocalSource.open(tmp_path, (tmp_path,))

    found = await listed(source)

    assert found.keys() == {"a", "\\xff.txt"}
    assert await code(source, planned(found["\\xff.txt"])) == Code.SOURCE_CHANGED


async def test_only_regular_files_are_listed_and_folders_are_not_followed_through_links(tmp_path: Path) -> None:
    """Pipes, dead links and loops do not stop a listing."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "alias").symlink_to("a")
    (tmp_path / "dead").symlink_to("none")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")

    found = await listed(LocalSource.open(tmp_path, (tmp_path,)))

    assert found.keys() == {"a", "alias"}


async def test_a_link_out_of_the_roots_is_a_reject_even_if_it_is_made_after_planning(tmp_path: Path) -> None:
    """The path is resolved when it is opened."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_bytes(b"x")
    (root / "a").symlink_to(secret)
    source = LocalSource.open(root, (root,))

    assert await code(source, planned((await listed(source))["a"])) == Code.SOURCE_NOT_ALLOWED


async def test_an_object_that_became_a_pipe_does_not_block(tmp_path: Path) -> None:
    """Opening does not wait for a writer."""
    (tmp_path / "a").write_bytes(b"x")
    source = LocalSource.open(tmp_path, (tmp_path,))
    wanted = planned((await listed(source))["a"])
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")

    assert await code(source, wanted) == Code.SOURCE_CHANGED


async def test_a_single_file_is_a_source_of_one_object(tmp_path: Path) -> None:
    """Its siblings are not read."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"y")

    found = await listed(LocalSource.open(tmp_path / "a", (tmp_path,)))

    assert found.keys() == {"a"}


async def test_writes_leave_nothing_else_behind_and_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is fsynced before it has its name, and the folder after."""
    synced: list[str] = []
    real = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    destination = LocalDestination("file:///x", tmp_path / "run", (tmp_path,))

    await destination.put("data/t/a.bin", b"alpha")

    folder = tmp_path / "run" / "data" / "t"
    assert [path.name for path in folder.iterdir()] == ["a.bin"]
    assert synced[:3] == [str(tmp_path), str(tmp_path / "run"), str(tmp_path / "run/data")]
    assert synced[3].startswith(f"{folder}/.")
    assert synced[4:] == [str(folder)]


async def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network shares refuse links; the file is renamed to its name instead."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    destination = LocalDestination("file:///x", tmp_path / "run", (tmp_path,))

    await destination.put("a.bin", b"alpha")
    await destination.put("a.bin", b"alpha")

    assert await destination.get("a.bin") == b"alpha"
    assert [path.name for path in (tmp_path / "run").glob("*")] == ["a.bin"]


async def test_a_link_planted_inside_a_runs_folder_is_not_written_through(tmp_path: Path) -> None:
    """The folder's name can be foreseen, so whoever may write beside it could lead the worker's files elsewhere."""
    run, elsewhere = tmp_path / "out" / RUN, tmp_path / "elsewhere"
    for folder in (run, elsewhere):
        folder.mkdir(parents=True)
    (run / "data").symlink_to(elsewhere)
    destination = LocalDestination(f"file://{run}", run, (tmp_path,))
    codes = []
    for write in (destination.put, destination.replace):
        with pytest.raises(WorkFailed) as failed:
            await write("data/README.md", b"x")
        codes.append(failed.value.code)
    await destination.put("records/a.json", b"x")

    assert codes == [Code.SOURCE_NOT_ALLOWED] * 2
    assert list(elsewhere.iterdir()) == []
