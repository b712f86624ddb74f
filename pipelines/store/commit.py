"""The committer: records of a run on their way into the ledger, at most one commit each `commit_every_s`.

Invariant: records are appended in the order in which they were handed over, so a revision stands before its spans and
these before their document; `on_commit` of a batch runs only after its append was acknowledged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pipelines.store.ledger import Ledger
from pipelines.store.records import Record

_MOST_RECORDS = 20_000  # of one commit: a first night's sources arrive faster than a second's worth should weigh


class Committer:
    """Appends from one thread of its own; `add` may be called from any.

    An error of the ledger (fenced, store unavailable) is kept, given to `on_error`, and raised by the next call.
    """

    def __init__(self, ledger: Ledger, every_s: float, on_error: Callable[[BaseException], None]) -> None:
        self._ledger = ledger
        self._every_s = every_s
        self._on_error = on_error
        self._queue: list[tuple[Sequence[Record], Callable[[], None] | None]] = []
        self._wake = threading.Condition()
        self._appending = False
        self._flushing = 0  # threads that wait for the queue to be empty: no pause between commits then
        self._closing = False
        self._error: BaseException | None = None
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def add(self, records: Sequence[Record], on_commit: Callable[[], None] | None = None) -> None:
        with self._wake:
            self._raise()
            self._queue.append((records, on_commit))
            self._wake.notify_all()

    def flush(self) -> None:
        """Waits until everything added so far, and whatever its callbacks added, is committed."""
        with self._wake:
            self._flushing += 1
            self._wake.notify_all()
            try:
                while (self._queue or self._appending) and self._error is None:
                    self._wake.wait()
            finally:
                self._flushing -= 1
            self._raise()

    def idle(self) -> bool:
        """Whether nothing waits and nothing is being appended."""
        with self._wake:
            return not self._queue and not self._appending

    def close(self) -> None:
        """Commits what is there and ends the thread; never raises for an error that was raised before."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not self._queue and not self._closing:
                        self._wake.wait()
                    if not self._queue:
                        return
                    batch = self._take()
                    self._appending = True
                self._ledger.append([record for records, _ in batch for record in records])
                self.commits += 1
                for _, on_commit in batch:
                    if on_commit is not None:
                        on_commit()
                with self._wake:
                    self._appending = False
                    self._wake.notify_all()
                    if self._every_s:
                        self._wake.wait_for(lambda: self._closing or self._flushing > 0, timeout=self._every_s)
        except BaseException as error:  # the thread's end must be seen by whoever waits for it
            with self._wake:
                self._error, self._appending = error, False
                self._wake.notify_all()
            self._on_error(error)

    def _take(self) -> list[tuple[Sequence[Record], Callable[[], None] | None]]:
        count, taken = 0, 0
        for records, _ in self._queue:
            if taken and count + len(records) > _MOST_RECORDS:
                break
            count, taken = count + len(records), taken + 1
        batch, self._queue = self._queue[:taken], self._queue[taken:]
        return batch
