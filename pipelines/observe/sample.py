"""Which pages of a run the report shows: a bounded, deterministic choice made while receipts pass.

Invariant: the choice depends on the pages and their states alone, never on the order in which they came back; memory is
some hundred entries whatever the run. No image is kept: the report draws the chosen pages again at the end, from the
source, so that nothing of it costs the workers anything.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.schema import SpanReceipt

_KEEP = 64  # candidates of each state
_KEEP_DOUBTFUL = 20
_SHARES = {"failed": 0.125, "degraded": 0.25, "doubtful": 0.25, "blank": 0.05}  # of the sample, at most; the rest is `ok`
_OF_ONE_DOCUMENT = 0.25  # of the sample, at most, while others are left


@dataclass(slots=True, frozen=True, order=True)
class Pick:
    """A page that the report may show, and where its row is."""

    rank: float  # by which candidates of one kind are ordered: a hash, or how surely the page was read
    doc_id: str
    page_index: int
    uri: str
    part: str
    attempt: str
    state: str
    reason: str  # random | degraded | failed | blank | doubtful | asked
    options: str = ""  # of the document alone, see pipelines/options.py
    secret: int = 0  # number of what opens it, in a table that whoever draws it has; not told

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _TOLD}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Pick:
        """From what `as_dict` gave, or what a newer minor version gave, which has more keys."""
        return cls(0.0, **{name: entry[name] for name in _TOLD})


_TOLD = ("doc_id", "page_index", "uri", "part", "attempt", "state", "reason")


class Sampler:
    """Keeps the candidates; not thread-safe."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[float, Pick]]] = {}  # by reason: pages, whatever their document
        self._documents: dict[str, dict[str, tuple[float, Pick]]] = {}  # by reason: one page of each of some documents

    def saw(self, receipt: SpanReceipt, uri: str) -> None:
        """Pages that were committed."""
        for page, state in zip(receipt.pages, receipt.states, strict=True):
            rank = _hash(receipt.doc_id, page)
            reason = "random" if state == "ok" else state
            pick = _pick(rank, receipt, page, uri, state, reason)
            self._keep(reason, pick, _KEEP)
            self._keep_of_document(reason, pick)

    def doubted(self, certainty: float, page_index: int, uri: str, receipt: SpanReceipt) -> None:
        """The page of a call that was read least surely."""
        state = receipt.states[receipt.pages.index(page_index)]
        self._keep("doubtful", _pick(certainty, receipt, page_index, uri, state, "doubtful"), _KEEP_DOUBTFUL)

    def doubtful(self) -> list[Pick]:
        """Pages read least surely, the worst first."""
        return sorted(pick for _, pick in self._heaps.get("doubtful", []))

    def choose(self, most: int) -> list[Pick]:
        """At most so many pages, each once: some of each state, some doubtful ones, the rest at random; by document."""
        chosen: dict[tuple[str, int], Pick] = {}
        documents: dict[str, int] = {}
        limit = max(1, int(most * _OF_ONE_DOCUMENT))

        def take(candidates: Iterable[Pick], room: int, bounded: bool) -> None:
            for pick in candidates:
                if room <= 0 or len(chosen) >= most:
                    return
                key = pick.doc_id, pick.page_index
                if key in chosen or (bounded and documents.get(pick.doc_id, 0) >= limit):
                    continue
                chosen[key] = pick
                documents[pick.doc_id] = documents.get(pick.doc_id, 0) + 1
                room -= 1

        for reason, share in _SHARES.items():
            take(self._sorted(reason), max(1, round(most * share)), bounded=True)
        take(self._sorted("random"), most, bounded=True)
        for reason in ("random", *_SHARES):
            take(self._sorted(reason), most, bounded=False)
        return sorted(chosen.values(), key=lambda pick: (pick.uri, pick.doc_id, pick.page_index))

    def _sorted(self, reason: str) -> list[Pick]:
        """One page of each of many documents first, then pages whatever their document."""
        documents = [pick for _, pick in sorted(self._documents.get(reason, {}).values())]
        return documents + sorted(pick for _, pick in self._heaps.get(reason, []))

    def _keep_of_document(self, reason: str, pick: Pick) -> None:
        kept = self._documents.setdefault(reason, {})
        rank = _hash(pick.doc_id)
        kept[pick.doc_id] = min((rank, pick), kept.get(pick.doc_id, (rank, pick)))
        if len(kept) > _KEEP:
            del kept[max(kept.values())[1].doc_id]

    def _keep(self, kind: str, pick: Pick, most: int) -> None:
        heap = self._heaps.setdefault(kind, [])
        entry = (-pick.rank, pick)
        if len(heap) < most:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)


def _pick(rank: float, receipt: SpanReceipt, page: int, uri: str, state: str, reason: str) -> Pick:
    where = receipt.part, receipt.attempt
    return Pick(rank, receipt.doc_id, page, uri, *where, state, reason, receipt.options, receipt.secret)


def _hash(doc_id: str, page_index: int = -1) -> float:
    digest = hashlib.blake2b(f"{doc_id}:{page_index}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / (1 << 48)
