"""The supply: spans on their way from planning to the graphs that read them, in blocks of up to N pages.

Invariant: bounded, so planning waits when reading is slower; `stop` ends it at once for both sides (a drain: what was
taken finishes, what was not stays in the ledger as pending and is planned again by the next run). The first blocks are
small, so that a run shows its first page early however slow its reader is; so are the last, that readers end together.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from pipelines.schema import Span

_MOST_SPANS = 2000  # waiting; 16,000 pages of a long document, some hundred kB
_LINGER_S = 0.2  # how long a short block waits for more short documents before it goes


class Supply:
    """`put` and `close` from the planning thread, `take` from the feeding one, `stop` from anywhere (a signal handler too)."""

    def __init__(self, block_pages: int) -> None:
        self._block_pages = block_pages
        self._next_pages = 1  # of the next block: 1, 2, 4 ... up to `block_pages`
        self._spans: deque[Span] = deque()
        self._changed = threading.Condition(threading.RLock())  # a signal handler may interrupt its own thread inside
        self._closed = False
        self._stopped = False

    def put(self, spans: Iterable[Span]) -> bool:
        """False when the supply was stopped: planning should end."""
        for span in spans:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or len(self._spans) < _MOST_SPANS)
                if self._stopped:
                    return False
                self._spans.append(span)
                self._changed.notify_all()
        return not self._stopped

    def close(self) -> None:
        """Planning is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def wait(self) -> bool:
        """Waits for the first span; False when none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._spans or self._closed or self._stopped)
            return bool(self._spans) and not self._stopped

    def take(self, most_blocks: int, hungry: Callable[[], bool] = lambda: True, shares: int = 0) -> list[list[Span]] | None:
        """Up to `most_blocks` blocks, as soon as there is one; None at the end.

        Args:
            hungry: whether readers will soon have nothing to do. While they have, a block that is not full waits for more:
                each costs the driver CPU, whatever its size.
            shares: blocks into which what is left is cut when no more will come; 0: blocks stay as they are.
        """
        with self._changed:
            while not self._spans and not self._closed and not self._stopped:
                self._changed.wait()
            if self._stopped or not self._spans:
                return None
            until = time.monotonic() + _LINGER_S
            while not (self._full() or self._closed or self._stopped):
                left = until - time.monotonic()
                if left <= 0 and hungry():
                    break
                self._changed.wait(left if left > 0 else _LINGER_S)
            return self._cut(most_blocks, shares)

    def give_back(self, returned: list[list[Span]]) -> None:
        """Blocks that a feed no longer took go to the front."""
        with self._changed:
            self._spans.extendleft(reversed([span for block in returned for span in block]))
            self._changed.notify_all()

    def left(self) -> int:
        """Spans that nobody has taken."""
        with self._changed:
            return len(self._spans)

    def _full(self) -> bool:
        pages = 0
        for span in self._spans:
            pages += len(span.pages)
            if pages >= self._next_pages:
                return True
        return False

    def _cut(self, most_blocks: int, shares: int) -> list[list[Span]]:
        cut: list[list[Span]] = []
        while self._spans and len(cut) < most_blocks:
            cut.append(self._cut_block(self._room(shares)))
            self._next_pages = min(self._block_pages, 2 * self._next_pages)
        self._changed.notify_all()
        return cut

    def _room(self, shares: int) -> int:
        """Pages of the next block."""
        if not (self._closed and shares):
            return self._next_pages
        left = sum(len(span.pages) for span in islice(self._spans, shares * self._next_pages))
        return min(self._next_pages, -(-left // shares))

    def _cut_block(self, room: int) -> list[Span]:
        """The next block, at most `room` pages; what is left of a span that was cut waits in front."""
        block: list[Span] = []
        while self._spans and (room >= len(self._spans[0].pages) or not block):
            first, *rest = self._spans.popleft().cut(room)
            self._spans.extendleft(reversed(rest))
            block.append(first)
            room -= len(first.pages)
        return block
