"""Progress of a run, as one line now and then.

Invariant: it prints what `Summary` counted, nothing else.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TextIO

from pipelines.observe.summary import Summary


class Progress:
    """Context manager; a thread of its own."""

    def __init__(self, summary: Summary, line_every_s: float, stream: TextIO | None = None) -> None:
        self._summary = summary
        self._every_s = line_every_s
        self._given = stream
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        done, elapsed = self._summary.pages_done, self._summary.elapsed()
        more = "" if self._summary.planning_done else "+ (planning)"
        return (
            f"pages {done}/{self._summary.planned_pages}{more}  {done / max(elapsed, 1e-9):.2f}/s  "
            f"failed {self._summary.pages['failed']}  elapsed {int(elapsed // 60)}:{int(elapsed % 60):02d}"
        )

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            print(self.line(), file=self._given or sys.stderr, flush=True)
