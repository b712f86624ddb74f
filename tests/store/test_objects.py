"""Objects by key: whole or not at all, created once, asked for a bounded number of times in bounded time."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

import pipelines.store.filesystem as filesystem
from pipelines.errors import OutputUnwritable, StoreUnavailable
from pipelines.store.objects import ObjectStore
from tests.s3server import S3


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "disk":
        return ObjectStore(str(tmp_path / "out"))
    s3: S3 = request.getfixturevalue("s3")
    return ObjectStore(s3.bucket() + "/out", s3.options())


def test_what_is_put_is_there(store: ObjectStore) -> None:
    assert list(store.list()) == []
    assert store.size("a/b") is None
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    store.put("a/b c %20 é", b"")
    assert (store.get("a/b"), store.size("a/b"), store.exists("a/c")) == (b"two", 3, False)
    assert sorted(store.list("a")) == ["a/b", "a/b c %20 é"]
    with pytest.raises(FileNotFoundError):
        store.get("a/nothing")
    store.delete("a/b")
    store.delete("a/b")
    assert store.size("a/b") is None


def test_a_key_is_created_once(store: ObjectStore) -> None:
    assert store.put_new("k", b"first")
    assert not store.put_new("k", b"second")
    assert store.get("k") == b"first"
    store.check_writable()
    assert list(store.list()) == ["k"]


def test_a_folder_that_begins_to_be_while_it_is_listed_is_no_key(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drivers that begin at once: one lists what the other is about to write. It was taken for a foreign object named ''."""
    root = s3.bucket() + "/out"
    store = ObjectStore(root, s3.options())
    listed = store.filesystem._lsdir

    async def then_written(*args: object, **kwargs: object) -> object:
        found = await listed(*args, **kwargs)
        await store.filesystem._pipe_file(f"{root.removeprefix('s3://')}/key", b"of the other driver")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(store.filesystem, "_lsdir", then_written)
        assert list(store.list()) == []
    assert list(store.list()) == ["key"]


def test_a_request_that_hangs_is_given_up_and_made_again(s3: S3) -> None:
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True), retries=3, timeout_s=2)
    store.put("warm", b"up")
    s3.fault("hang", "PUT", "key", times=1)
    s3.fault("hang", "GET", "key", times=1)
    store.put("key", b"data")
    assert store.get("key") == b"data"
    assert store.counts["retried"] == 2
    # done, but the answer came too late: the second try meets the first one's object, and its writer reads it back
    s3.fault("late_answer", "PUT", "once", times=1)
    assert not store.put_new("once", b"ours")
    assert store.get("once") == b"ours"


def test_reading_an_object_is_one_request(s3: S3) -> None:
    """Whether it is there or not: nobody asks for its size before, or whether the name is a folder's."""
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True))
    store.put("there", b"data")
    before = len(s3.faults.seen)
    assert store.get("there") == b"data"
    with pytest.raises(FileNotFoundError):
        store.get("not-there")
    assert [line.split("?")[0].rsplit("/", 1)[-1] for line in s3.faults.seen[before:]] == ["there", "not-there"]
    assert store.counts["get"] == 2


def test_retries_are_bounded_and_wait_longer_each_time(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(filesystem.time, "sleep", waits.append)
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True), retries=8)
    s3.fault("slowdown", "PUT", "key", times=1000)
    before = len(s3.faults.seen)
    with pytest.raises(StoreUnavailable, match="after 9 tries"):
        store.put("key", b"data")
    assert len(s3.faults.seen) - before == 9
    assert len(waits) == 8
    assert waits[-1] > 10 * waits[0]
    assert max(waits) <= 8


def test_a_full_disk_is_no_reason_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(str(tmp_path))
    store.put("there", b"before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(filesystem.os, "fsync", full)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="No space"):
        store.put("there", b"after")
    assert time.monotonic() - started < 30
    assert store.get("there") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]  # nothing half written stays


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="cannot write below /proc/nothing"):
        ObjectStore("/proc/nothing").check_writable()
