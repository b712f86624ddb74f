"""What bounds probing: the bytes that are under way, and the child processes that open documents.

Invariant: whoever waits here gets its turn or, after `close`, is told so at once; nothing is held by who was told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config import RasterConfig
from pipelines.raster.isolate import IsolatedRasterizer

_PATIENCE_S = 0.5  # opening takes milliseconds, a further child 0.25 s of CPU: it starts where documents keep the others busy


class Closed(Exception):
    """Nothing new begins any more."""


class Room:
    """Bytes that may be under way together, from the first that is fetched until the document was opened.

    Args:
        size: of all together. documents: so many may go whatever their size.
    """

    def __init__(self, size: int, documents: int) -> None:
        self._size, self._documents = size, documents
        self._bytes = self._count = 0
        self._closed = False
        self._turn = threading.Lock()  # first come, first served: small documents would pass a large one for ever
        self._changed = threading.Condition()

    @contextmanager
    def of(self, size: int | None) -> Iterator[None]:
        """Waits for room for a document; None: nobody knows its size, and few of that kind go together.

        Raises:
            Closed
        """
        wanted = self._size // self._documents if size is None else size
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(wanted))
            if self._closed:
                raise Closed
            self._bytes += wanted
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._bytes -= wanted
                self._count -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, wanted: int) -> bool:
        return self._count < self._documents or self._bytes + wanted <= self._size


class Children:
    """Rasterizers' children, one document at a time in each. At first there is one; another one is added when for
    `_PATIENCE_S` on end none was free.

    Args:
        most: of them.
    """

    def __init__(self, raster: RasterConfig, most: int) -> None:
        self._raster, self._most = raster, most
        self._made: list[IsolatedRasterizer] = []
        self._idle: list[IsolatedRasterizer] = []
        self._waiting = 0
        self._short_since: float | None = None  # somebody waits, without a pause
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def one(self) -> Iterator[IsolatedRasterizer]:
        """One that nobody else uses.

        Raises:
            Closed
        """
        taken = self._take()
        try:
            yield taken
        finally:
            with self._changed:
                self._idle.append(taken)
                self._changed.notify()

    def close(self) -> None:
        """Who waits is told; `end` follows when who has one gave it back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def end(self) -> None:
        for made in self._made:
            made.close()

    def _take(self) -> IsolatedRasterizer:
        with self._changed:
            self._waiting += 1
            try:
                while not self._closed and not self._idle:
                    left_s = self._until_another_s()
                    if left_s == 0:
                        return self._another()
                    self._changed.wait(left_s)
                if self._closed:
                    raise Closed
                return self._idle.pop()
            finally:
                self._waiting -= 1
                if not self._waiting:
                    self._short_since = None

    def _until_another_s(self) -> float | None:
        """How long none may become free before another one is due; None: there are as many as there may be."""
        if not self._made:
            return 0
        if len(self._made) >= self._most:
            return None
        now = time.monotonic()
        self._short_since = self._short_since or now
        return max(0.0, self._short_since + _PATIENCE_S - now)

    def _another(self) -> IsolatedRasterizer:
        """It starts with the first document that it is asked to open."""
        self._short_since = None
        made = IsolatedRasterizer(self._raster.engine, self._raster.deadline_s, self._raster.memory_mib)
        self._made.append(made)
        return made
