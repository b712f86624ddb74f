"""A run that must be gone by a time of day: it drains early enough, and is stopped where that was not enough.

Invariant: `drain` is called once, at least half the given time after the start; at the deadline itself a run that still goes on
is interrupted as by a second signal, so what is not committed by then is pending and nothing else is lost.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from datetime import time as time_of_day
from types import TracebackType

from pipelines.errors import ConfigError

log = logging.getLogger("pagemill")

_SLACK_S = 15.0  # beside what is under way: the last commits, Markdown, the report, the end of the cluster
_LOOK_S = 1.0


def next_occurrence(text: str, now: datetime) -> datetime:
    """When the clock shows `text` next: HH:MM, with seconds if wanted, in local time unless it has an offset.

    Args:
        now: aware.

    Raises:
        ConfigError: not a time of day.
    """
    try:
        wanted = time_of_day.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"--until {text}: expected a time of day such as 06:00, 06:00+02:00 or 04:00Z") from None
    here = now.astimezone(wanted.tzinfo) if wanted.tzinfo else now.astimezone()
    for day in range(3):  # the third where a clock is put back across midnight
        found = datetime.combine(here.date() + timedelta(days=day), wanted.replace(tzinfo=None))
        aware = found.replace(tzinfo=wanted.tzinfo) if wanted.tzinfo else found.astimezone()
        if aware > now:
            return aware
    raise AssertionError("three days hold every time of day")


class Deadline:
    """Context manager around a run; a thread of its own.

    Args:
        until: aware.
        most_s: the longest that is left for what is under way (nightly.drain_s).
        under_way_s: how long a page lately took from the hand-over to its receipt; None: none came back yet.
        interruptible: whether this process handles SIGTERM as `ingest` does.
    """

    def __init__(
        self,
        until: datetime,
        most_s: float,
        under_way_s: Callable[[], float | None],
        drain: Callable[[], None],
        interruptible: bool,
    ) -> None:
        self.until = until
        self.drained = self.missed = False
        self._most_s, self._under_way_s, self._drain, self._interruptible = most_s, under_way_s, drain, interruptible
        self._window_s = max(0.0, until.timestamp() - time.time())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)

    def lead_s(self) -> float:
        """How long before the deadline no new pages are begun: as long as pages lately took, and half as much again."""
        took = self._under_way_s()
        wanted = self._most_s if took is None else min(self._most_s, 1.5 * took + _SLACK_S)
        return min(wanted, self._window_s / 2)

    def __enter__(self) -> Deadline:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        """By the wall clock, which is what `until` is about: a suspended machine wakes up late, and drains at once."""
        while not self._ended.is_set():
            left = self.until.timestamp() - time.time()
            if left <= 0:
                break
            if not self.drained and left <= self.lead_s():
                self.drained = True
                log.warning("draining until=%s", self.until.isoformat(timespec="seconds"))
                self._drain()
            self._ended.wait(min(_LOOK_S, left))
        if self._ended.is_set() or not self._interruptible:
            return
        self.missed = True
        if not self.drained:  # it began too late
            self._drain()
        main = threading.main_thread().ident
        if main is not None:  # its handler raises: the run was told to drain
            signal.pthread_kill(main, signal.SIGTERM)
