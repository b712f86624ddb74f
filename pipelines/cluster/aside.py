"""What yields in a thread of its own, so that whoever reads it can leave while it hangs.

Invariant: items and the error that ends them arrive as if they were made here, one after the other, at most two ahead; the
reader asks ten times a second whether it is over, and then waits for nothing.

Ray waits for a head that is gone in native code, in whatever was asked of it (seen while a graph starts: in the call that
notes which of its libraries are used), and after a minute ends the process: exit code 1 and not a word. A thread that waits
there hears neither of an error nor of a signal, so it must not be the one that commits and reports.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.1


@dataclass(slots=True, frozen=True)
class _End:
    error: BaseException | None


class Aside(threading.Thread, Generic[T]):
    """A thread that makes items for `items`; started by it.

    Args:
        make: called in the thread; what it yields is handed over, what it raises is raised by `items`.
    """

    def __init__(self, make: Callable[[], Iterable[T]]) -> None:
        super().__init__(name="aside", daemon=True)
        self._make = make
        self._made: queue.Queue[T | _End] = queue.Queue(1)
        self.left = threading.Event()  # nobody reads any more: what makes the items should end

    def items(self, is_over: Callable[[], bool]) -> Generator[T, None, None]:
        """What was made, until its end, or until it is over."""
        self.start()
        try:
            while not is_over():
                try:
                    item = self._made.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                if not isinstance(item, _End):
                    yield item
                elif item.error is None:
                    return
                else:
                    raise item.error
        finally:
            self.left.set()

    def run(self) -> None:
        try:
            for item in self._make():
                if not self._hand(item):
                    return
            self._hand(_End(None))
        except BaseException as error:  # raised where the items are read
            self._hand(_End(error))

    def _hand(self, item: T | _End) -> bool:
        """Waits for room; False when nobody reads any more."""
        while not self.left.is_set():
            try:
                self._made.put(item, timeout=_LOOK_S)
                return True
            except queue.Full:
                continue
        return False


def join_all(longest_s: float) -> None:
    """Waits until no such thread runs any more."""
    for thread in threading.enumerate():
        if isinstance(thread, Aside):
            thread.join(longest_s)
