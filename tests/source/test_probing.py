"""Probing: many objects are fetched at once, few are opened at once; every candidate comes out once; what is under way is
bounded in bytes, and ends when the consumer does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from pipelines.config import Config, load
from pipelines.source import bounds
from pipelines.source.bounds import Children, Closed, Room
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate, Verdict
from pipelines.source.probing import Prober
from pipelines.store.objects import ObjectStore
from tests.builders import archive, pdf_bytes
from tests.conftest import inline_config
from tests.s3server import S3

_PATIENCE_S = 0.05


def candidate(uri: str, size: int | None = None) -> Candidate:
    return Candidate(Verdict.NEW, uri, size, None, None, None, None)


class Child:
    """In the place of the rasterizer's child; opening takes as long as it is told."""

    seconds = 0.0
    made: list[Child] = []

    def __init__(self, *_: object) -> None:
        self.busy = threading.Lock()
        self.made.append(self)

    def probe(self, path: str, *_: object) -> str:
        assert self.busy.acquire(blocking=False), "two documents at once in one child"
        time.sleep(self.seconds)
        self.busy.release()
        return Path(path).name

    def close(self) -> None: ...


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> type[Child]:
    monkeypatch.setattr(bounds, "IsolatedRasterizer", Child)
    monkeypatch.setattr(Child, "made", [])
    return Child


@pytest.mark.parametrize(("seconds", "children"), [(0.0, {1}), (10 * _PATIENCE_S, {3})])
def test_children_by_how_busy_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_children: type[Child], seconds: float, children: set[int]
) -> None:
    monkeypatch.setattr(bounds, "_PATIENCE_S", _PATIENCE_S if seconds else 30.0)  # a loaded machine is no slow document
    monkeypatch.setattr(Child, "seconds", seconds)
    config = inline_config(tmp_path / "out", source__probe_workers=3)
    paths = sorted(archive(tmp_path / "in", dict.fromkeys("abcdef", 1)).iterdir())
    prober = Prober(config, DocumentCache.of(config.source))
    try:
        found = list(prober.probe_all(candidate(path.as_uri()) for path in paths))
    finally:
        prober.close()
    assert [one.error for one in found] == [None] * 6
    assert {one.candidate.uri for one in found} == {path.as_uri() for path in paths}
    assert {len(Child.made)} == children


def test_many_that_wait_in_turn_are_a_reason_for_another_child(monkeypatch: pytest.MonkeyPatch, no_children: type[Child]) -> None:
    """Each waits for less than the patience, together without a pause: one core is not enough for what is fetched."""
    monkeypatch.setattr(bounds, "_PATIENCE_S", _PATIENCE_S)
    monkeypatch.setattr(Child, "seconds", _PATIENCE_S / 10)
    children = Children(load().raster, 3)

    def opened(_: int) -> None:
        with children.one() as child:
            child.probe("a.pdf", [])

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(opened, range(400)))
    assert len(Child.made) == 3


# -- fetching ---------------------------------------------------------------------------------------------------------


def stored(s3: S3, count: int, extra: bytes = b"") -> list[str]:
    """Objects of a new bucket, each a document of its own."""
    bucket = s3.bucket()
    store = ObjectStore(bucket, s3.options())
    for number in range(count):
        store.put(f"in/{number:03d}.pdf", pdf_bytes([f"page of document {number}"], extra))
    return [f"{bucket}/in/{number:03d}.pdf" for number in range(count)]


def config_of(s3: S3, tmp_path: Path, **settings: object) -> Config:
    return inline_config(tmp_path / "out", source__storage_options=s3.options(faulty=True), **settings)


def test_a_store_is_asked_for_many_at_once_and_few_children_open_them(s3: S3, tmp_path: Path) -> None:
    """The store answers none of the requests before twelve of them wait: more than an S3 client has connections by itself."""
    uris = stored(s3, 36)
    s3.faults.together = threading.Barrier(12)
    s3.fault("together", "GET", ".pdf", times=36)
    config = config_of(s3, tmp_path, source__fetches=12)
    before = set(psutil.Process().children())  # the server, and what other tests have started
    prober = Prober(config, DocumentCache.of(config.source))
    try:
        found = list(prober.probe_all(candidate(uri, 700) for uri in uris))
        assert 1 <= len(set(psutil.Process().children()) - before) <= config.source.probe_workers
    finally:
        prober.close()
    assert not s3.faults.together.broken
    assert sorted(one.candidate.uri for one in found) == uris
    assert {(one.error, one.probe.page_count if one.probe else None) for one in found} == {(None, 1)}


@pytest.mark.parametrize("size", [400 << 10, None])
def test_bytes_under_way_are_bounded_whatever_the_number_of_fetches(s3: S3, tmp_path: Path, size: int | None) -> None:
    """Room for one of them: two go all the same, as many as may be opened. So do those of which nobody knows the size."""
    uris = stored(s3, 10, b"%" + b"x" * (400 << 10) + b"\n")
    s3.faults.together = threading.Barrier(2)
    s3.fault("together", "GET", ".pdf", times=10)
    s3.faults.most_under_way = 0
    config = config_of(s3, tmp_path, source__fetches=8, source__cache_gib=4 * 500 * 1024 / (1 << 30))
    prober = Prober(config, DocumentCache.of(config.source))
    try:
        found = list(prober.probe_all(candidate(uri, size) for uri in uris))
    finally:
        prober.close()
    assert sorted(one.candidate.uri for one in found) == uris
    assert [one.error for one in found] == [None] * 10
    assert not s3.faults.together.broken
    assert s3.faults.most_under_way == 2


def test_a_consumer_that_stops_early_leaves_nothing_running(s3: S3, tmp_path: Path) -> None:
    uris = stored(s3, 40)
    taken: list[str] = []

    def candidates() -> Iterator[Candidate]:
        for uri in uris:
            taken.append(uri)
            yield candidate(uri, 700)

    before = set(threading.enumerate()), set(psutil.Process().children())
    config = config_of(s3, tmp_path, source__fetches=4, source__cache_gib=1e-6)  # two go at once, two threads wait for room
    prober = Prober(config, DocumentCache.of(config.source))
    results = prober.probe_all(candidates())
    next(results)
    taken_then, seen_then = len(taken), len(s3.faults.seen)
    results.close()
    prober.close()
    assert len(taken) == taken_then <= 17  # in hand: four for each fetch
    assert len(s3.faults.seen) - seen_then <= 2 * config.source.probe_workers  # those that were under way, none that waited
    left = {thread for thread in threading.enumerate() if thread.name.startswith("probe")}
    assert left <= before[0]
    assert set(psutil.Process().children()) <= before[1]


# -- what bounds it ---------------------------------------------------------------------------------------------------


def test_a_large_document_is_not_passed_by_small_ones_for_ever() -> None:
    room, order = Room(10, 1), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with room.of(9):
            inside.set()
            leave.wait(30)

    def after(name: str, size: int) -> None:
        with room.of(size):
            order.append(name)

    with ThreadPoolExecutor(3) as threads:
        threads.submit(first)
        assert inside.wait(30)
        threads.submit(after, "large", 10)
        until = time.monotonic() + 30
        while not room._turn.locked() and time.monotonic() < until:
            time.sleep(0.001)
        small = threads.submit(after, "small", 1)  # would fit at once
        time.sleep(0.05)
        assert order == []
        leave.set()
        small.result(30)
    assert order == ["large", "small"]


def test_who_waits_is_told_that_nothing_begins_any_more(no_children: type[Child]) -> None:
    room, children = Room(10, 1), Children(load().raster, 1)
    with ThreadPoolExecutor(8) as threads, room.of(10), children.one():

        def waiting_for(what: str) -> None:
            with room.of(1) if what == "room" else children.one():
                pass

        waiting = [threads.submit(waiting_for, what) for what in ("room", "child") * 4]
        time.sleep(0.05)
        told_early = [future for future in waiting if future.done()]
        room.close()
        children.close()
        assert told_early == []
        assert [type(future.exception(30)) for future in waiting] == [Closed] * 8
