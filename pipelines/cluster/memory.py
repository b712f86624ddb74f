"""Workers that Ray's memory monitor has ended: told while the run goes on and in its report, and the run's end where no
worker comes up any more.

Invariant: what is counted is what the cluster's head has in its table of workers, as the cause of their end, of this job alone;
whoever else took the node's memory, it was this job's workers that were ended. A run in which one actor of each pool is up goes
on, however many others are ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from pipelines.cluster.pools import Pool
from pipelines.cluster.ray_private import ended_for_memory
from pipelines.errors import EngineUnavailable, PagemillError
from pipelines.observe.log import EventLog
from pipelines.observe.summary import MEMORY_HINT, Summary

log = EventLog()
_EVERY_S = 15.0
_LEAST_REST = 100  # times what an answer took: the head sends a row for every worker that it has seen
_LONGEST_END_S = 10.0  # a head that is gone does not answer
_STARTS = 5  # of each actor of a pool, before its run ends because none of them came up; Ray itself would go on for ever


class MemoryWatch:
    """Context manager within a Ray session; a thread of its own."""

    def __init__(self, summary: Summary, every_s: float = _EVERY_S) -> None:
        self._summary, self._every_s = summary, every_s
        self.looks = 0  # that were answered
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_LONGEST_END_S)

    def look(self) -> int:
        """How many were ended so far, on all nodes, as far as the head answers."""
        with self._lock:
            before = self._summary.memory_kills
            try:
                found = self._summary.memory_kills = ended_for_memory()
            except Exception as error:  # a count is not worth a run
                log.debug("memory_watch_failed", error=error)
                return before.total()
            self.looks += 1
        for node, count in (found - before).items():
            log.warning("workers_ended_for_memory", node=node, workers=count, try_this=MEMORY_HINT)
        return found.total()

    def _run(self) -> None:
        pause, last = self._every_s, False
        while not last:
            last = self._stop.wait(pause)
            began = time.monotonic()
            self.look()
            pause = max(self._every_s, _LEAST_REST * (time.monotonic() - began))


class Starts:
    """Ends a run whose actors are ended for memory again and again before one of a pool is up: of one graph.

    An actor is up when its constructor has loaded its models. Ray starts one that was ended before that once more, without
    limit, and nothing of it reaches the tasks whose tries are counted (seen: 21 ends in two minutes).

    Args:
        stop: told once with what ends the run.
    """

    def __init__(self, watch: MemoryWatch, summary: Summary, stop: Callable[[PagemillError], None]) -> None:
        self._watch, self._summary, self._stop = watch, summary, stop
        self._down: dict[str, _Down] = {}  # by pool
        self._told = False

    def seen(self, pool: Pool, up: int) -> None:
        """How many actors of a pool are up now; called all the time while a graph runs."""
        if up:
            self._down.pop(pool.name, None)
            return
        down = self._down.setdefault(pool.name, _Down(self._watch.looks))
        ended = self._summary.memory_kills.total()
        if self._watch.looks < down.looks + 2:  # the first look since then counts those that were ended before it too
            down.ended = ended
        elif ended - down.ended >= _STARTS * pool.size and not self._told:
            self._told = True
            self._stop(EngineUnavailable(
                f"no worker for {pool.name} came up: Ray's memory monitor ended {ended - down.ended} of them while they started, "
                f"because their node was short of memory; {MEMORY_HINT}"
            ))  # fmt: skip


@dataclass(slots=True)
class _Down:
    """No actor of a pool is up."""

    looks: int  # of the watch when it began
    ended: int = 0  # workers, as far as they may have been ended before it began
