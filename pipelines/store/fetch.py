"""Objects on their way: several GETs at once, handed over in order, in a bounded number of bytes.

Invariant: what is held are at most 16 objects, and of those whose size is known at most 64 MiB, or one alone. An object
store answers each in tens of milliseconds; one after the other, 3,000 of them are minutes and millions are days.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipelines.store.objects import ObjectStore

_AT_ONCE = 16
_AHEAD_BYTES = 64 << 20

T = TypeVar("T")


def fetched(
    store: ObjectStore, wanted: Iterable[T], key: Callable[[T], str], size: Callable[[T], int] = lambda _: 0
) -> Iterator[tuple[T, bytes | None]]:
    """Each with its bytes, or None where there is no such object.

    Raises:
        StoreUnavailable
    """
    remaining, coming, ahead = iter(wanted), deque[tuple[T, Future[bytes]]](), 0
    following = next(remaining, None)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as threads:
        try:
            while following is not None or coming:
                while (
                    following is not None and len(coming) < _AT_ONCE and (not coming or ahead + size(following) <= _AHEAD_BYTES)
                ):
                    coming.append((following, threads.submit(store.get, key(following))))
                    ahead += size(following)
                    following = next(remaining, None)
                one, fetching = coming.popleft()
                ahead -= size(one)
                try:
                    data: bytes | None = fetching.result()
                except FileNotFoundError:
                    data = None
                yield one, data
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
