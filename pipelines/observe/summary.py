"""What a run did, as plain data: counted while it runs, written into `report.json`, shown by progress and report.

Invariant: every figure was measured or counted in this run; nothing is estimated. Memory is bounded: only the worst few
pages and failures are kept by name, all are counted.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.observe.cards import CardUsage, merge_cards
from pipelines.observe.quality import Quality
from pipelines.observe.sample import Sampler
from pipelines.schema import SpanReceipt

if TYPE_CHECKING:
    from pipelines.stages import Outcome

T = TypeVar("T", bound=tuple[Any, ...])

_KEEP_FAILURES = 200
_KEEP_SLOWEST = 20
MEMORY_HINT = "try fewer ray.workers, or more memory"  # where Ray's memory monitor ended workers


@dataclass(slots=True)
class Failure:
    uri: str
    doc_id: str | None
    page_index: int | None  # null: the document, or the object, as a whole
    code: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Pool:
    """A pool of actors. Seconds are summed over its workers; what is left of `present` is start-up and the run's end."""

    present: float = 0.0  # workers times the time for which their graph ran
    idle: float = 0.0  # between two calls
    held: float = 0.0  # for which Ray held the pool back because what follows was not fast enough

    def shares(self, busy: dict[str, float]) -> dict[str, float]:
        """Shares of `present`: of each stage, `starved` (waiting for input), `blocked` (waiting for room behind it)."""
        blocked = min(self.idle, self.held)
        spent = {**busy, "starved": self.idle - blocked, "blocked": blocked}
        return {name: round(seconds / self.present, 4) if self.present else 0.0 for name, seconds in spent.items()}


@dataclass(slots=True, frozen=True)
class _Graph:
    pools: dict[str, int]  # names and sizes
    held: Mapping[str, float]
    since: float  # time.monotonic()


@dataclass
class Summary:
    """Counters of one run. All methods may be called from any thread."""

    run_id: str
    source: str
    output: str
    fingerprint: str
    engines: dict[str, str]  # role -> name
    request: str = ""  # of a reprocess: which pages were asked for; a later run of the same goes on where this one ended
    started: float = field(default_factory=time.time)  # UTC seconds
    ended: float | None = None
    status: str = "running"  # running | finished | nothing_to_do | interrupted | fenced | failed
    message: str = ""
    listed: Counter[str] = field(default_factory=Counter)  # verdicts of change detection: new, changed, done ...
    skipped: Counter[str] = field(default_factory=Counter)  # droppings, by reason
    documents: Counter[str] = field(default_factory=Counter)  # completed in this run, by state
    source_errors: Counter[str] = field(default_factory=Counter)  # by code
    pages: Counter[str] = field(default_factory=Counter)  # committed in this run, by state
    codes: Counter[str] = field(default_factory=Counter)  # of failed pages
    planned_pages: int = 0
    planning_done: bool = False
    published: bool | None = None  # false: held back, because the canaries drifted or were not judged; null: none rode
    canary: dict[str, Any] | None = None  # what they said, see pipelines/observe/drift.py
    listing_done: bool = False  # every object was compared with the ledger
    left_objects: int | None = None  # listed, not done, and not reached by this run; null: it lists nothing
    stage_seconds: Counter[str] = field(default_factory=Counter)  # summed over workers
    pools: dict[str, Pool] = field(default_factory=dict)  # of actors, by the stages that they hold
    workers: int = 0
    requests: Counter[str] = field(default_factory=Counter)  # get, put ... of all processes; source_get ... of SOURCE
    cards: dict[str, CardUsage] = field(default_factory=dict)  # by node and card, while its actors worked
    graphs: int = 0  # 1 unless one died
    memory_kills: Counter[str] = field(default_factory=Counter)  # workers that Ray's memory monitor ended, by node
    first_commit_s: float | None = None  # from the start of the command to the first committed page
    failures: list[Failure] = field(default_factory=list)
    failures_left_out: int = 0
    slowest: list[tuple[float, str, int, str]] = field(default_factory=list)  # (seconds, doc_id, page, uri), a heap
    timeline: list[tuple[float, int]] = field(default_factory=list)  # (seconds since start, pages committed)
    pending: int | None = None  # pages planned and not committed, when the run ended
    quality: Quality = field(default_factory=Quality)  # of every block that was read
    sampler: Sampler = field(default_factory=Sampler, repr=False)  # pages that the report may show
    _documents_slowest: list[tuple[float, str, str, int, str]] = field(default_factory=list, repr=False)  # a heap
    _running: _Graph | None = field(default=None, repr=False)
    _document_seconds: Counter[str] = field(default_factory=Counter, repr=False)  # of documents under way
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def pages_done(self) -> int:
        return sum(self.pages.values())

    def elapsed(self) -> float:
        return (self.ended or time.time()) - self.started

    def committed(self, receipts: list[SpanReceipt], uris: Mapping[str, str]) -> None:
        """Counts pages whose receipts the ledger has acknowledged; `uris`: where each document can be had."""
        with self._lock:
            for receipt in receipts:
                self.pages.update(receipt.states)
                self.codes.update(code for code in receipt.codes if code)
                self.sampler.saw(receipt, uris.get(receipt.doc_id, ""))
            if receipts and self.first_commit_s is None:
                self.first_commit_s = time.time() - self.started
            self.timeline.append((round(self.elapsed(), 2), sum(self.pages.values())))
            if len(self.timeline) > 2000:
                self.timeline = self.timeline[::2]

    def worked(self, outcome: Outcome) -> None:
        """Adds what one call of a chain did."""
        with self._lock:
            self.stage_seconds.update(outcome.seconds)
            for name, seconds in outcome.idle.items():
                self.pools.setdefault(name, Pool()).idle += seconds
            self.requests.update(outcome.requests)
            merge_cards(self.cards, outcome.cards)
            self.quality.merge(outcome.quality)
            self._document_seconds.update(outcome.document_seconds)
            if outcome.slowest is not None:
                _keep(self.slowest, (round(outcome.slowest[0], 3), *outcome.slowest[1:]))
            if outcome.doubtful is not None:
                certainty, doc_id, page, uri = outcome.doubtful
                held = next((r for r in outcome.receipts if r.doc_id == doc_id and page in r.pages), None)
                if held is not None:
                    self.sampler.doubted(certainty, page, uri, held)

    def document_done(self, doc_id: str, uri: str, pages: int, state: str) -> None:
        """A document is complete: what it cost the workers is known."""
        with self._lock:
            seconds = self._document_seconds.pop(doc_id, 0)
            _keep(self._documents_slowest, (round(float(seconds), 3), doc_id, uri, pages, state))

    def graph_started(self, pools: Mapping[str, int], held: Mapping[str, float]) -> None:
        """A graph runs from now on.

        Args:
            pools: their names, in order, with the number of their actors.
            held: by pool, the seconds for which Ray has held it back so far; grows while the graph runs.
        """
        with self._lock:
            self._running = _Graph(dict(pools), held, time.monotonic())

    def graph_ended(self, pools: Mapping[str, int], seconds: float, held: Mapping[str, float]) -> None:
        """Adds the time for which a graph's pools were there.

        Args:
            pools: their names, in order, with the number of their actors.
            held: by pool, the seconds for which Ray held it back.
        """
        with self._lock:
            self._running = None
            self.pools = {name: self.pools.get(name) or Pool() for name in (*pools, *self.pools)}  # in the order of the flow
            for name, workers in pools.items():
                pool = self.pools[name]
                pool.present += workers * seconds
                pool.held += workers * held.get(name, 0.0)

    def asked_source(self, requests: Counter[str]) -> None:
        """Adds the driver's own requests to the source: of listing and of probing."""
        with self._lock:
            self.requests.update({f"source_{kind}": count for kind, count in requests.items()})

    def failed(self, failure: Failure) -> None:
        with self._lock:
            if len(self.failures) < _KEEP_FAILURES:
                self.failures.append(failure)
            else:
                self.failures_left_out += 1

    def _pools_now(self) -> dict[str, Pool]:
        """Of the graphs that ended, and of the one that runs."""
        if self._running is None:
            return self.pools
        seconds, graph = time.monotonic() - self._running.since, self._running
        now = {}
        for name in dict.fromkeys((*graph.pools, *self.pools)):
            pool, size = self.pools.get(name) or Pool(), graph.pools.get(name, 0)
            now[name] = Pool(pool.present + size * seconds, pool.idle, pool.held + size * graph.held.get(name, 0.0))
        return now

    def _pool(self, name: str, pool: Pool) -> dict[str, Any]:
        busy = {stage: float(self.stage_seconds[stage]) for stage in name.split(", ") if stage in self.stage_seconds}
        return {"stages": name.split(", "), "worker_seconds": round(pool.present, 3), "shares": pool.shares(busy)}

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the lock; times in seconds, `started` and `ended` as UTC epoch seconds."""
        with self._lock:
            shown = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "sampler"}
            shown = {name: dict(value) if isinstance(value, Counter) else value for name, value in shown.items()}
            shown["cards"] = [usage.as_dict(name) for name, usage in sorted(self.cards.items())]
            pools = self._pools_now()
            shown["pools"] = [self._pool(name, pool) for name, pool in pools.items()]
            blocked = sum(min(pool.idle, pool.held) for pool in pools.values())
            idle = sum(pool.idle for pool in pools.values())
            shown["idle"] = {"starved": round(idle - blocked, 3), "blocked": round(blocked, 3)}
            shown["failures"] = [failure.as_dict() for failure in self.failures]
            shown["quality"] = self.quality.as_dict()
            shown["slowest"] = [
                {"seconds": seconds, "doc_id": doc_id, "page_index": page, "uri": uri}
                for seconds, doc_id, page, uri in sorted(self.slowest, reverse=True)
            ]
            shown["slowest_documents"] = [
                {"seconds": seconds, "doc_id": doc_id, "uri": uri, "pages": pages, "state": state}
                for seconds, doc_id, uri, pages, state in sorted(self._documents_slowest, reverse=True)
            ]
            shown["doubtful"] = [pick.as_dict() | {"certainty": round(pick.rank, 4)} for pick in self.sampler.doubtful()]
            shown["seconds"] = round(self.elapsed(), 3)
            shown["pages_per_second"] = round(self.pages_done / max(self.elapsed(), 1e-9), 4)
            return shown


def _keep(heap: list[T], entry: T) -> None:
    """Pushes onto a heap that holds the largest few."""
    push = heapq.heappush if len(heap) < _KEEP_SLOWEST else heapq.heappushpop
    push(heap, entry)
