"""Workers that Ray's memory monitor has ended, told while the run goes on and in its report.

Invariant: it decides nothing. What it counts is what the cluster's head has in its table of workers, as the cause of their end,
of this job alone; whoever else took the node's memory, it was this job's workers that were ended.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from pipelines.cluster.ray_private import ended_for_memory
from pipelines.observe.log import EventLog
from pipelines.observe.summary import MEMORY_HINT, Summary

log = EventLog()
_EVERY_S = 15.0
_LEAST_REST = 100  # times what an answer took: the head sends a row for every worker that it has seen
_LONGEST_END_S = 10.0  # a head that is gone does not answer


class MemoryWatch:
    """Context manager within a Ray session; a thread of its own."""

    def __init__(self, summary: Summary, every_s: float = _EVERY_S) -> None:
        self._summary, self._every_s = summary, every_s
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
