"""Progress of a run: a bar on a terminal, a line now and then elsewhere.

Invariant: it shows what `Summary` counted; the rate is measured over the last minute, and a remaining time is shown only
when planning is done and that rate was measured for ten seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import TextIO

from pipelines.observe.summary import Summary

_WINDOW_S = 60.0
_LEAST_MEASURED_S = 10.0
_BAR_EVERY_S = 0.5


class Progress:
    """Context manager; a thread of its own. `stream`: standard error, as it is when the thread writes."""

    def __init__(self, summary: Summary, line_every_s: float, stream: TextIO | None = None) -> None:
        self._summary = summary
        self._every_s = line_every_s
        self._given = stream
        self._measured: deque[tuple[float, int]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """Where the run is, as one line of text."""
        summary, (rate, measured_s) = self._summary, self._rate()
        done, elapsed = summary.pages_done, summary.elapsed()
        planned = f"{summary.planned_pages}" + ("" if summary.planning_done else "+ (planning)")
        words = [f"pages {done}/{planned}", f"{rate:.2f}/s", f"failed {summary.pages['failed']}", f"elapsed {_clock(elapsed)}"]
        if summary.planning_done and rate > 0 and measured_s >= _LEAST_MEASURED_S:
            words.append(f"about {_clock((summary.planned_pages - done) / rate)} left at this rate")
        return "  ".join(words)

    def _rate(self) -> tuple[float, float]:
        """Pages a second, and the seconds over which that was measured."""
        now = time.monotonic()
        self._measured.append((now, self._summary.pages_done))
        while now - self._measured[0][0] > _WINDOW_S:
            self._measured.popleft()
        seconds = now - self._measured[0][0]
        return ((self._measured[-1][1] - self._measured[0][1]) / seconds if seconds > 0 else 0.0), seconds

    def _run(self) -> None:
        if self._stream.isatty():
            self._bar()
            return
        while not self._stop.wait(self._every_s):
            print(self.line(), file=self._stream, flush=True)

    def _bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(), TextColumn("{task.description}"))
        with RichProgress(*columns, console=Console(file=self._stream), transient=True) as bar:
            task = bar.add_task("starting", total=None)
            while not self._stop.wait(_BAR_EVERY_S):
                total = self._summary.planned_pages if self._summary.planning_done else None
                bar.update(task, completed=self._summary.pages_done, total=total, description=self.line())

    @property
    def _stream(self) -> TextIO:
        return self._given or sys.stderr


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
