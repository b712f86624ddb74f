"""Probing: new objects are fetched, hashed and opened, in isolation. Many are fetched at once, because a store takes its time
over each; few are opened at once, because that takes a core.

Invariant: it raises for no input; every candidate that goes in comes out once, with a document or an error. What is under way
is bounded in documents and in bytes, and ends when the consumer does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from pipelines.config import Config
from pipelines.errors import PagemillError
from pipelines.schema import Probe
from pipelines.source.bounds import Children, Room
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate
from pipelines.source.listing import is_remote
from pipelines.source.manifest import Secret, opening
from pipelines.source.web import is_web

_AHEAD = 4  # candidates in hand for each that may be under way: threads have work while the consumer has
_UNDER_WAY = 1 / 4  # of the cache's size: what was fetched is still there when it is opened, and the disk is not filled

Way = Literal["disk", "store", "web"]  # by which an object comes


@dataclass(slots=True, frozen=True)
class ProbeError:
    code: str
    message: str
    transient: bool


@dataclass(slots=True, frozen=True)
class Probed:
    candidate: Candidate
    doc_id: str | None  # None: its bytes could not be had
    probe: Probe | None  # None: it could not be opened
    error: ProbeError | None


class Prober:
    """
    Args:
        known: what opening a document told before, so that a copy is not opened again.
        secrets: the run's table, see `manifest.Given`.
    """

    def __init__(
        self, config: Config, cache: DocumentCache, known: Callable[[str], Probe | None] = lambda _: None,
        secrets: Sequence[Secret] = (),
    ) -> None:  # fmt: skip
        source = config.source
        self._source = source
        self._cache = cache
        self._known = known
        self._secrets = secrets
        self._children = Children(config.raster, source.probe_workers)
        self._room = Room(int(source.cache_gib * _UNDER_WAY * (1 << 30)), source.probe_workers)
        self._most: dict[Way, int] = {"disk": source.probe_workers, "store": source.fetches, "web": source.web_fetches}
        self._pools = {way: ThreadPoolExecutor(most, thread_name_prefix="probe") for way, most in self._most.items()}

    def probe_all(self, candidates: Iterator[Candidate]) -> Iterator[Probed]:
        """Results as they are ready; at most some candidates are in hand. Who stops asking has those that wait forgotten."""
        in_hand: Counter[Way] = Counter()
        waiting: dict[Future[Probed], Way] = {}
        ready: SimpleQueue[Future[Probed]] = SimpleQueue()

        def taken() -> Probed:
            future = ready.get()
            in_hand[waiting.pop(future)] -= 1
            return future.result()

        try:
            for candidate in candidates:
                way = _way(candidate.uri)
                while in_hand[way] >= _AHEAD * self._most[way] or not ready.empty():
                    yield taken()
                future = self._pools[way].submit(self.probe, candidate)
                in_hand[way] += 1
                waiting[future] = way
                future.add_done_callback(ready.put)
            while waiting:
                yield taken()
        finally:
            for future in waiting:
                future.cancel()

    def probe(self, candidate: Candidate) -> Probed:
        doc_id = None
        options = self._source.storage_options
        link, passwords = opening(candidate.uri, candidate.secret, self._secrets, self._source.passwords)
        try:
            with self._room.of(candidate.size), self._cache.fetched(link, options) as found:
                doc_id = found.doc_id
                probe = self._known(doc_id)
                if probe is None:
                    with self._children.one() as child:
                        probe = child.probe(str(found.path), passwords, self._source.probe_deadline_s)
            return Probed(candidate, doc_id, probe, None)
        except PagemillError as error:
            return Probed(candidate, doc_id, None, ProbeError(error.code, str(error), error.transient))

    def close(self) -> None:
        """What is being fetched or opened is awaited; what waits for its turn is not."""
        self._room.close()
        self._children.close()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._children.end()


def _way(uri: str) -> Way:
    return "web" if is_web(uri) else "store" if is_remote(uri) else "disk"
