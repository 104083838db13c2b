"""Who may open what."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_common.kernel.codes import Code
from flux_transform.adapters.store import Access, OpenStores
from flux_transform.adapters.store_cloud import CloudSource
from flux_transform.adapters.store_local import LocalSource
from flux_transform.domain.failures import WorkFailed
from flux_transform.domain.items import Item, Job

RUN = "11111111-1111-5111-8111-111111111111"


def item(source: str, destination: str = "memory://out/") -> Item:
    """Return an item that names these places."""
    return Item("nasa", RUN, "r", 1, "plan", 0, 1, Job(source, destination, "text", "research"))


def refusal(access: Access, uri: str) -> Code:
    """Return the code with which a source is refused."""
    with pytest.raises(WorkFailed) as failed:
        OpenStores(access).source(item(uri))
    return Code[failed.value.code]


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
    access = Access(prefixes={"nasa": ("memory://scans/box-17/",)}, memory=True)

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
