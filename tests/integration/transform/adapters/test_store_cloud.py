"""Object stores: what is not already in the suite that both adapters share (test_store_local.py)."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore, S3Store

from flux_common.kernel.codes import Code
from flux_common.kernel.errors import Classification, Unavailable
from flux_transform.adapters.store_cloud import CloudDestination, CloudSource
from flux_transform.domain.plan import PlannedObject

SILENT = "http://127.0.0.1:9"  # the discard port: nobody listens


def silent_store() -> S3Store:
    """Return a store that does not answer."""
    return S3Store(
        "bucket",
        endpoint=SILENT,
        access_key_id="AKIA-CANARY",
        secret_access_key="secret-canary",
        region="us-east-1",
        client_options={"allow_http": True, "timeout": "1s"},
        retry_config={"max_retries": 0},
    )


async def test_a_store_that_does_not_answer_is_unavailable_and_names_no_credentials() -> None:
    """The item is tried again; the error's text holds nothing of the store's configuration."""
    planned = PlannedObject("a", 1, '"e"', "", 0)

    with pytest.raises(Unavailable) as source:
        await CloudSource(silent_store(), "in").fetch(planned)
    with pytest.raises(Unavailable) as destination:
        await CloudDestination("s3://bucket/out", silent_store(), "out").put("a", b"x")

    assert (source.value.code, destination.value.code) == (Code.SOURCE_UNAVAILABLE, Code.STORE_UNAVAILABLE)
    assert source.value.classification is Classification.STORAGE
    assert "canary" not in str(source.value).lower()


async def test_a_prefix_is_a_folder() -> None:
    """`box-17` does not list `box-170`."""
    store = MemoryStore()
    for path in ("box-17/a", "box-170/b"):
        store.put(path, b"x")

    found = [entry.key async for page in CloudSource(store, "box-17").list() for entry in page]

    assert found == ["a"]
