"""What the driver makes of graphs that die, with graphs that run in this process: nobody is blamed for a store without room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pagemill
import pipelines.cluster.graph
import pipelines.cluster.metrics
import pipelines.cluster.session
import pipelines.pipeline
from pipelines.cluster.feed import read_feed
from pipelines.cluster.graph import GraphDied
from pipelines.cluster.pools import Pool
from pipelines.errors import ExitCode
from pipelines.ingest import Ended, ingest
from pipelines.stages import Chain, Outcome, Site, begin, stage_names
from pipelines.store.objects import ObjectStore
from tests.builders import archive
from tests.conftest import inline_config

Deaths = Callable[..., list[int]]


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    """Makes the first graphs die of a block (any, or one that holds a page); the number of graphs, as it grows."""

    def make(death: GraphDied, times: int, page: int | None = None) -> list[int]:
        begun = [0]

        def run_graph(site: Site, folder: str, pools: Sequence[Pool], *_: object, **__: object) -> Iterator[Outcome]:
            begun[0] += 1
            chain = Chain(stage_names(site.config), site)
            try:
                for spans in read_feed(ObjectStore(site.output), folder):
                    if begun[0] <= times and (page is None or any(page in span.pages for span in spans)):
                        raise death
                    yield chain.run(begin(spans))
            finally:
                chain.close()

        monkeypatch.setattr(pipelines.cluster.graph, "run_graph", run_graph)
        return begun

    def here(*_: Any, **__: Any) -> Any:
        return nullcontext(SimpleNamespace(workers=1, cpus=2, gpus=0))

    class Session:
        workers, cpus, gpus = 1, 2, 0

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Session:
            return self

        def __exit__(self, *_: object) -> None: ...

        def cards(self, _: object) -> None: ...

    monkeypatch.setattr(pipelines.cluster.session, "Session", Session)
    monkeypatch.setattr(pipelines.cluster.metrics, "Exporter", here)
    monkeypatch.setattr(pipelines.pipeline, "_ROOM_S", 0.0)
    return make


def run(tmp_path: Path) -> Ended:
    source = archive(tmp_path / "in", {"a": 3}) if not (tmp_path / "in").exists() else tmp_path / "in"
    return ingest(str(source), str(tmp_path / "out"), inline_config(tmp_path / "out"))


def test_a_store_without_room_blames_no_page(tmp_path: Path, deaths: Deaths) -> None:
    deaths(GraphDied("the store is full", full=True), 3)
    ended = run(tmp_path)
    assert ended.exit_code == ExitCode.OK, ended.summary.message
    assert [row["state"] for row in pagemill.read(str(tmp_path / "out"), "pages").to_pylist()] == ["ok"] * 3


def test_a_store_that_never_has_room_ends_the_run_and_leaves_all_to_the_next(tmp_path: Path, deaths: Deaths) -> None:
    begun = deaths(GraphDied("the store is full", full=True), 1000)
    ended = run(tmp_path)
    assert ended.exit_code == ExitCode.INTERRUPTED
    assert "the store is full" in ended.summary.message
    assert "CLUSTER_LOST" in ended.summary.message
    assert begun[0] < 10
    assert pagemill.read(str(tmp_path / "out"), "pages").num_rows == 0
    deaths(GraphDied("never"), 0)
    assert run(tmp_path).exit_code == ExitCode.OK
    assert pagemill.read(str(tmp_path / "out"), "pages").num_rows == 3


def test_a_page_that_never_finds_room_keeps_no_other_from_being_read(tmp_path: Path, deaths: Deaths) -> None:
    begun = deaths(GraphDied("the store is full", full=True), 1000, page=0)
    ended = run(tmp_path)
    assert ended.exit_code == ExitCode.INTERRUPTED
    assert "CLUSTER_LOST" in ended.summary.message
    assert begun[0] < 15
    deaths(GraphDied("never"), 0)
    assert run(tmp_path).summary.pages == {"ok": 1}  # the two others were read before


def test_a_page_whose_worker_dies_alone_too_is_blamed(tmp_path: Path, deaths: Deaths) -> None:
    deaths(GraphDied("a worker died"), 2)  # the first graph, and the first page alone
    ended = run(tmp_path)
    assert ended.exit_code == ExitCode.SOME_FAILED
    rows = pagemill.read(str(tmp_path / "out"), "pages").to_pylist()
    assert [row["error_code"] for row in rows] == ["WORKER_LOST", None, None]
