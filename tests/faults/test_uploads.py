"""An object that goes up in several requests."""

from __future__ import annotations

import os

import pytest

from pipelines.store.objects import ObjectStore
from tests.s3server import S3


@pytest.mark.chaos
@pytest.mark.long
def test_a_large_upload_in_parts_that_break(s3: S3) -> None:
    """What `compact` writes goes up in several requests, each of which may fail, the last one after it was done."""
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True), retries=3)
    data = os.urandom(101 << 20)  # s3fs cuts from 100 MiB on
    s3.fault("torn", "PUT", "partNumber=2", times=1)
    store.put("torn", data)
    assert store.get("torn") == data
    s3.fault("lost_answer", "POST", "uploadId", times=1)
    store.put("lost", data)
    assert store.get("lost") == data
    s3.fault("lost_answer", "POST", "uploadId", times=1)
    assert not store.put_new("once", data)  # its own first try was done: whoever put it reads it back
    assert store.get("once") == data
    assert not [rule for rule in s3.faults.rules if rule["times"]]
