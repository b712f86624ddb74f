"""A run ends where Ray's memory monitor ends a pool's actors before one is up, and only there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cluster.memory import Starts
from pipelines.cluster.pools import Pool
from pipelines.errors import EngineUnavailable, PagemillError
from pipelines.observe.summary import MEMORY_HINT, Summary

POOL = Pool(("read",), size=2)


class Node:
    """A graph's steps, with looks between them that find so many more workers ended."""

    def __init__(self) -> None:
        self.told: list[PagemillError] = []
        self._watch: Any = SimpleNamespace(looks=7)
        self._summary = Summary("run", "in", "out", "print", {})
        self._summary.memory_kills["node"] = 3  # of the graph before
        self._starts = Starts(self._watch, self._summary, self.told.append)

    def steps(self, up: int, ended: int) -> None:
        self._starts.seen(POOL, up)
        self._summary.memory_kills["node"] += ended
        self._watch.looks += 1
        self._starts.seen(POOL, up)
        self._starts.seen(POOL, up)


def test_a_pool_that_never_comes_up_ends_the_run_after_a_bounded_number_of_starts() -> None:
    node = Node()
    for _ in range(20):
        node.steps(up=0, ended=2)
    (error,) = node.told
    assert isinstance(error, EngineUnavailable)
    assert "ended 10 of them while they started" in str(error)
    assert MEMORY_HINT in str(error)


@pytest.mark.parametrize("up", [1, 2])
def test_a_pool_with_one_actor_up_goes_on_however_many_others_are_ended(up: int) -> None:
    node = Node()
    for _ in range(100):
        node.steps(up, ended=2)
    assert not node.told


def test_what_was_ended_while_actors_were_up_is_not_held_against_their_start() -> None:
    """The head is asked four times a minute: what it then counts may be of before. A page that takes all memory ends as many."""
    node = Node()
    for _ in range(100):
        node.steps(up=1, ended=0)
        node.steps(up=0, ended=9)
        node.steps(up=0, ended=1)
    assert not node.told
