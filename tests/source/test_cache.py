"""A node's documents: fetched once, shared, bounded; never another document under a digest."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

import pipelines.source.cache
from pipelines.errors import SourceChanged, SourceUnreadable
from pipelines.source.cache import DocumentCache, _exclusive
from tests.conftest import ROOT


def write(path: Path, data: bytes) -> tuple[str, str]:
    """(digest, URI)"""
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest(), str(path)


def test_what_is_used_by_many_at_once_is_fetched_once(tmp_path: Path) -> None:
    doc_id, uri = write(tmp_path / "a", b"x" * 5_000_000)
    caches = [DocumentCache(tmp_path / "cache", 1) for _ in range(8)]
    wrong: list[str] = []

    def use(cache: DocumentCache) -> None:
        with cache.use(doc_id, uri, {}) as path:
            if hashlib.sha256(path.read_bytes()).hexdigest() != doc_id:
                wrong.append(str(path))

    threads = [threading.Thread(target=use, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(cache.requests["get"] for cache in caches) == 1


def test_other_bytes_are_never_taken_for_the_document(tmp_path: Path) -> None:
    doc_id, uri = write(tmp_path / "a", b"before")
    Path(uri).write_bytes(b"after")
    cache = DocumentCache(tmp_path / "cache", 1)
    with pytest.raises(SourceChanged), cache.use(doc_id, uri, {}):
        pass
    os.unlink(uri)
    with pytest.raises(SourceUnreadable), cache.use(doc_id, uri, {}):
        pass


def test_the_limit_holds_but_for_what_is_in_use(tmp_path: Path) -> None:
    cache = DocumentCache(tmp_path / "cache", 2.5 / 1024)  # two and a half MiB
    found = [write(tmp_path / str(n), bytes([n]) * (1 << 20)) for n in range(5)]
    with cache.use(*found[0], {}) as held:
        for number, (doc_id, uri) in enumerate(found[1:], 1):
            with cache.use(doc_id, uri, {}) as path:
                os.utime(path, (number * 1000, number * 1000))  # used in this order
        os.utime(held, (1, 1))
        cache.evict()
        left = [number for number, (doc_id, _) in enumerate(found) if (tmp_path / "cache" / doc_id[:2] / doc_id).exists()]
        assert left == [0, 4]  # the oldest is in use
    cache.evict()
    assert cache.requests["get"] == 5


def test_a_document_larger_than_the_whole_cache_is_fetched_once_to_be_used(tmp_path: Path) -> None:
    """Not again and again, evicted each time before anybody holds it."""
    doc_id, uri = write(tmp_path / "a", b"x" * (1 << 20))
    cache = DocumentCache(tmp_path / "cache", 0.25 / 1024)
    using = threading.Thread(target=lambda: cache.use(doc_id, uri, {}).__enter__(), daemon=True)
    using.start()
    using.join(30)
    assert not using.is_alive()
    assert cache.requests["get"] == 1
    with cache.fetched(uri, {}) as found:
        cache.evict()
        assert found.path.stat().st_size == 1 << 20
    cache.evict()
    assert not found.path.exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from pipelines.source.cache import DocumentCache\n"
        "cache = DocumentCache(Path(sys.argv[1]), 1)\n"
        "with cache._partial() as file:\n    file.write(b'half'); file.flush(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "cache")], cwd=ROOT, check=False, timeout=60)
    (left,) = (tmp_path / "cache").glob(".partial-*")
    cache = DocumentCache(tmp_path / "cache", 1)
    cache.evict()
    assert left.exists()  # it may be that a process has begun it a moment ago
    os.utime(left, (time.time() - 3600,) * 2)
    with cache._partial() as mine:
        os.utime(mine.name, (time.time() - 3600,) * 2)
        cache.evict()
        assert Path(mine.name).exists()
    assert not left.exists()


def test_a_transfer_that_whose_clock_is_ahead_takes_for_abandoned_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour ahead, all partial files are old; one that is begun is not locked yet."""
    doc_id, uri = write(tmp_path / "a", b"a")
    cache, other, tidied = DocumentCache(tmp_path / "cache", 1), DocumentCache(tmp_path / "cache", 1), list[int]()
    lock = fcntl.flock

    def locked(file: BinaryIO | int, kind: int) -> None:
        if kind == fcntl.LOCK_EX and not isinstance(file, int) and not tidied:
            with monkeypatch.context() as ahead:
                now = time.time()
                ahead.setattr(pipelines.source.cache.time, "time", lambda: now + 3600)
                other.evict()
            tidied.append(len(list((tmp_path / "cache").glob(".partial-*"))))
        lock(file, kind)

    monkeypatch.setattr(pipelines.source.cache.fcntl, "flock", locked)
    with cache.use(doc_id, uri, {}) as path:
        assert path.read_bytes() == b"a"
    assert tidied == [0]
    assert not list((tmp_path / "cache").glob(".partial-*"))


def test_locks_and_allowances_of_documents_long_gone_are_forgotten(tmp_path: Path) -> None:
    cache = DocumentCache(tmp_path / "cache", 1)
    found = [write(tmp_path / str(n), bytes([n])) for n in range(3)]
    for doc_id, uri in found:
        with cache.use(doc_id, uri, {}):
            cache.budget_path(doc_id).write_text("7")
    old, held, young = ((tmp_path / "cache" / doc_id[:2] / f"{doc_id}.lock") for doc_id, _ in found)
    for path in (old, held, cache.budget_path(found[0][0])):
        os.utime(path, (time.time() - 30 * 86_400,) * 2)
    with _exclusive(held):
        cache.evict()
    assert not old.exists()
    assert not cache.budget_path(found[0][0]).exists()
    assert held.exists()
    assert young.exists()
    assert cache.budget_path(found[1][0]).exists()
    with cache.use(*found[0], {}) as path:
        assert path.read_bytes() == b"\0"


def test_a_full_cache_is_kept_small_without_being_told(tmp_path: Path) -> None:
    cache = DocumentCache(tmp_path / "cache", 1 / 1024)  # one MiB
    for number in range(256):
        doc_id, uri = write(tmp_path / "a", bytes([number]) * (16 << 10))
        with cache.use(doc_id, uri, {}):
            held = sum(path.stat().st_size for path in (tmp_path / "cache").glob("**/*") if len(path.name) == 64)
        assert held <= (1 << 20) + (1 << 17)  # beyond the limit by what is fetched between two looks


def test_a_file_that_changes_under_the_copy_is_never_half_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, cache = tmp_path / "scan.pdf", DocumentCache(tmp_path / "cache", 1)
    old, new = b"old " * 100_000, b"new " * 100_000
    changes = iter([True, False])

    def copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
        target.write(source.read(200_000))
        if next(changes):
            original.write_bytes(new)
        target.write(source.read())

    monkeypatch.setattr(pipelines.source.cache.shutil, "copyfileobj", copy)
    original.write_bytes(old)
    assert cache.fetch(str(original), {}).doc_id == hashlib.sha256(new).hexdigest()
    changes = itertools.repeat(True)  # somebody is still writing it
    with pytest.raises(SourceUnreadable, match="changed while it was read"):
        cache.fetch(str(original), {})
    assert not list((tmp_path / "cache").glob(".partial-*"))


def test_a_cache_that_was_tidied_away_is_made_again(tmp_path: Path) -> None:
    cache = DocumentCache(tmp_path / "cache", 1)
    (tmp_path / "a").write_bytes(b"document")
    doc_id = cache.fetch(str(tmp_path / "a"), {}).doc_id
    shutil.rmtree(tmp_path / "cache")
    with cache.use(doc_id, str(tmp_path / "a"), {}) as path:
        assert path.read_bytes() == b"document"
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"a file in its place")
    with pytest.raises(SourceUnreadable, match=r"set source\.cache_dir"), cache.use(doc_id, str(tmp_path / "a"), {}):
        pass
