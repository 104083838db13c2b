"""Who may open what."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from pydantic import TypeAdapter, ValidationError

from flux_common.contracts.types import Uri
from flux_common.kernel.codes import Code
from flux_common.kernel.errors import FluxError
from flux_transform.adapters.store import URI_CHARS_MAX, Access, OpenStores, Prefixes
from flux_transform.adapters.store_cloud import CloudSource
from flux_transform.adapters.store_local import LocalSource
from flux_transform.domain.failures import Rejected, WorkFailed
from flux_transform.domain.items import Item, Job
from flux_transform.domain.plan import PlannedObject
from flux_transform.settings import StoreSettings

RUN = "11111111-1111-5111-8111-111111111111"


def item(source: str, destination: str = "memory://out/") -> Item:
    """Return an item that names these places."""
    return Item("nasa", RUN, "r", 1, "plan", 0, 1, Job(source, destination, "text", "research"))


def refusal(access: Access, uri: str, destination: str | None = None) -> Code:
    """Return the code with which a source is refused, or a destination if one is given."""
    stores = OpenStores(access)
    act, named = (stores.source, item(uri)) if destination is None else (stores.destination, item(uri, destination))
    with pytest.raises(WorkFailed) as failed:
        act(named)
    return Code[failed.value.code]


class _Listener(BaseHTTPRequestHandler):
    """A store that refuses, and keeps what it was asked with."""

    asked: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        """Refuse."""
        self.asked.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


async def test_a_stores_secrets_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach the store that they are for, beside what variables say of it; those of other stores do not."""
    for name, text in {
        "AWS_ACCESS_KEY_ID": "FILED-ID",
        "AWS_SECRET_ACCESS_KEY": "filed-secret",
        "AWS_SESSION_TOKEN": "filed-session",
        "AZURE_CLIENT_SECRET": "of-another-store",
    }.items():
        (tmp_path / name).write_text(f"{text}\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Listener)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    stores = OpenStores(Access(), StoreSettings(secrets_dir=tmp_path).secrets())
    try:
        with pytest.raises(FluxError):
            await stores.source(item("s3://bucket/in/")).fetch(PlannedObject("a", 1, '"e"', "", 0))
    finally:
        server.shutdown()
        server.server_close()

    (asked,) = _Listener.asked
    assert asked["x-amz-security-token"] == "filed-session"
    assert "Credential=FILED-ID/" in asked["authorization"]


def test_a_folder_of_stores_secrets_is_read_strictly(tmp_path: Path) -> None:
    """A name that no store knows, an empty file and no folder are faults; what Kubernetes puts beside them is not."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("x")
    assert [path.name for _, path in StoreSettings(secrets_dir=tmp_path).secret_files()] == ["AWS_SECRET_ACCESS_KEY"]

    for name, text in {"AWS_REGION": "x", "password": "x", "AWS_SESSION_TOKEN": ""}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValidationError, match=name):
            StoreSettings(secrets_dir=tmp_path)
        (tmp_path / name).unlink()
    with pytest.raises(ValidationError, match="no folder"):
        StoreSettings(secrets_dir=tmp_path / "none")


def test_files_are_read_only_below_the_roots_after_links(tmp_path: Path) -> None:
    """A link out of the roots, dot segments and a sibling of similar name are all outside."""
    root, secret, sibling = (tmp_path / name for name in ("root", "secret", "root-2"))
    for folder in (root / "box", secret, sibling):
        folder.mkdir(parents=True)
    (root / "link").symlink_to(secret)
    access = Access(file_roots=(root,))

    refused = [
        refusal(access, f"file://{path}")
        for path in (
            secret,
            sibling,
            root / "link",
            f"{root}/box/../../secret",
            f"{root}/box/%2e%2e/%2e%2e/secret",
            "/",
        )
    ]

    assert refused == [Code.SOURCE_NOT_ALLOWED] * 6
    assert isinstance(OpenStores(access).source(item(f"file://{root}/box")), LocalSource)


def test_a_missing_folder_is_the_inputs_fault(tmp_path: Path) -> None:
    """It is told from a folder that is not allowed."""
    assert refusal(Access(file_roots=(tmp_path,)), f"file://{tmp_path}/none") == Code.SOURCE_MISSING


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("memory://scans/box-17/", True),
        ("memory://scans/box-17", True),
        ("memory://scans/box-17/deep/er", True),
        ("memory://scans/box-177/", False),
        ("memory://scans/", False),
        ("memory://other/box-17/", False),
        ("memory://scans/box-17/../box-18/", False),
    ],
)
def test_an_agency_stays_below_its_prefixes(uri: str, allowed: bool) -> None:
    """Prefixes end at slashes, and dot segments do not lead out."""
    access = Access(prefixes_of=lambda _: Prefixes(sources=("memory://scans/box-17/",)), memory=True)

    if allowed:
        assert isinstance(OpenStores(access).source(item(uri)), CloudSource)
    else:
        assert refusal(access, uri) == Code.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    "uri", ["http://host/x", "memory://scans/", "file://host/x", "s3://bucket/?x=1", "s3://bucket/#x"]
)
def test_other_schemes_are_refused(uri: str) -> None:
    """Memory is for tests; queries and fragments mean nothing to a store."""
    assert refusal(Access(file_roots=(Path("/"),)), uri) == Code.SOURCE_NOT_ALLOWED


def test_a_destination_is_the_runs_own_folder(tmp_path: Path) -> None:
    """Two runs never share one."""
    stores = OpenStores(Access(file_roots=(tmp_path,), memory=True))

    local = stores.destination(item("memory://a/", f"file://{tmp_path}/out/"))

    assert local.uri == f"file://{tmp_path}/out/{RUN}"
    with pytest.raises(WorkFailed):
        stores.destination(item("memory://a/", "file:///elsewhere/"))


def test_an_agency_that_is_not_registered_may_use_nothing(tmp_path: Path) -> None:
    """No prefixes are no licence."""
    access = Access((tmp_path,), prefixes_of=lambda agency: {"nasa": Prefixes()}.get(agency, Prefixes()), memory=True)

    assert refusal(access, f"file://{tmp_path}/") == Code.SOURCE_NOT_ALLOWED
    assert refusal(access, "memory://a/", "memory://a/") == Code.SOURCE_NOT_ALLOWED
    assert refusal(access, "memory://a/", f"file://{tmp_path}/out/") == Code.SOURCE_NOT_ALLOWED


def test_sources_and_destinations_have_prefixes_of_their_own(tmp_path: Path) -> None:
    """What may be read may not be written, nor the other way round."""
    archives, datasets = f"file://{tmp_path}/archives/", f"file://{tmp_path}/datasets/"
    (tmp_path / "archives").mkdir()
    access = Access((tmp_path,), prefixes_of=lambda _: Prefixes((archives,), (datasets,)))
    stores = OpenStores(access)

    assert isinstance(stores.source(item(archives)), LocalSource)
    assert stores.destination(item(archives, datasets)).uri == f"{datasets}{RUN}"
    assert refusal(access, datasets) == Code.SOURCE_NOT_ALLOWED
    assert refusal(access, archives, archives) == Code.SOURCE_NOT_ALLOWED


def test_a_link_into_another_agencys_folder_leads_nowhere(tmp_path: Path) -> None:
    """Both lie below the root: a folder, and an object, that link from one agency's prefix into another's."""
    mine, theirs = tmp_path / "nasa", tmp_path / "loc"
    for folder in (mine, theirs):
        folder.mkdir()
    (mine / "link").symlink_to(theirs)
    prefixes = Prefixes((f"file://{mine}/",), (f"file://{mine}/",))
    access = Access((tmp_path,), prefixes_of=lambda _: prefixes)

    assert refusal(access, f"file://{mine}/link/") == Code.SOURCE_NOT_ALLOWED
    assert refusal(access, f"file://{mine}/", f"file://{mine}/link/out/") == Code.SOURCE_NOT_ALLOWED


async def test_an_object_that_links_into_another_agencys_folder_is_rejected(tmp_path: Path) -> None:
    """The root would allow it; the agency's prefix does not."""
    mine, theirs = tmp_path / "nasa", tmp_path / "loc"
    for folder in (mine, theirs):
        folder.mkdir()
    (theirs / "secret.txt").write_text("secret")
    (mine / "a.txt").symlink_to(theirs / "secret.txt")
    access = Access((tmp_path,), prefixes_of=lambda _: Prefixes((f"file://{mine}/",)))
    source = OpenStores(access).source(item(f"file://{mine}/"))
    listed = [found async for page in source.list() for found in page]

    with pytest.raises(Rejected) as rejected:
        await source.fetch(PlannedObject(listed[0].key, listed[0].size, listed[0].etag, "text/plain", 0))

    assert rejected.value.code == Code.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    ("root", "prefix", "found"),
    [("a", "a/b", ["a/b"]), ("a/b", "a", ["a/b"]), ("a", "a", ["a"]), ("a", "b", []), ("a", "ab", [])],
)
def test_files_lie_where_a_root_and_a_prefix_overlap(tmp_path: Path, root: str, prefix: str, found: list[str]) -> None:
    """Whichever of them is the narrower one counts."""
    access = Access((tmp_path / root,))

    assert access.roots([f"file://{tmp_path}/{prefix}/", "s3://bucket/"]) == tuple(tmp_path / each for each in found)
    assert access.roots(None) == (tmp_path / root,)


def test_a_destination_leaves_room_for_the_manifests_uri(tmp_path: Path) -> None:
    """A run is refused when it is planned, not when all its work is done and the manifest has no legal URI."""
    access = Access((tmp_path,), memory=True)
    longest = "memory://a/" + "x" * (URI_CHARS_MAX - len(f"memory://a//{RUN}"))

    uri = OpenStores(access).destination(item("memory://a/", f"{longest}/")).uri

    assert refusal(access, "memory://a/", f"{longest}y/") == Code.SOURCE_NOT_ALLOWED
    assert TypeAdapter(Uri).validate_python(f"{uri}/manifest-{'a' * 64}.json")
