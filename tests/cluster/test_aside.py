"""What is made in a thread of its own arrives as if it were made here, and whoever reads it can leave at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines.cluster.graph
from pipelines.cluster.aside import Aside, join_all
from pipelines.cluster.graph import GraphDied, run_graph
from pipelines.cluster.pools import Pool
from pipelines.recognize.engines import identify
from pipelines.stages import Site, stage_names
from tests.conftest import inline_config


def test_items_come_in_order_and_their_error_last() -> None:
    def make() -> Iterator[int]:
        yield from range(5)
        raise ValueError("made aside")

    items = Aside(make).items(lambda: False)
    assert [next(items) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="made aside"):
        next(items)
    assert list(Aside(lambda: range(3)).items(lambda: False)) == [0, 1, 2]


def test_a_reader_that_is_slow_or_leaves_ends_what_is_made() -> None:
    made = []

    def make() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    aside = Aside(make)
    items = aside.items(lambda: False)
    assert next(items) == 0
    items.close()
    aside.join(60)
    assert not aside.is_alive()
    assert len(made) <= 3  # the one that was read, one that waits, one in hand


def test_a_reader_leaves_while_the_next_item_hangs() -> None:
    over, released = threading.Event(), threading.Event()

    def make() -> Iterator[int]:
        yield 1
        released.wait()

    aside = Aside(make)
    items = aside.items(over.is_set)
    assert next(items) == 1
    threading.Timer(0.3, over.set).start()
    assert list(items) == []
    assert aside.is_alive()  # it hangs still, and nobody waited for it
    released.set()
    join_all(60)
    assert not aside.is_alive()


def test_a_graph_whose_start_hangs_is_left_when_its_driver_cannot_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a head dies while Ray builds the graph: it is in none of Ray's own loops yet, which could be told."""
    released = threading.Event()
    monkeypatch.setattr(pipelines.cluster.graph, "planned", lambda *_: released.wait())
    config = inline_config(tmp_path / "out")
    site = Site(config, str(tmp_path / "out"), "run", "print", identify(config))
    over = threading.Event()
    threading.Timer(0.3, over.set).start()
    with pytest.raises(GraphDied, match="cannot go on"):
        list(run_graph(site, "plan", [Pool(stage_names(config))], {}, over.is_set))
    released.set()
    join_all(60)
