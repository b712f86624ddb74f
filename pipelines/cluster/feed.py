"""The feed: plan segments from the driver to the source of a Ray graph.

Invariant: a segment is immutable and numbered without gaps, so a read task that Ray replays yields the same blocks in
the same order. The driver never has more than `window` pages published and not receipted: what was fed to a graph that
died is exactly `outstanding()`, and planning cannot run away from reading. An empty segment ends the feed.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.schema import Span, Splice
from pipelines.store.objects import ObjectStore

PLAN = pa.schema(
    [
        ("block", pa.int64()),
        ("doc_id", pa.string()),
        ("revision", pa.int32()),
        ("pages", pa.list_(pa.int32())),
        ("uri", pa.string()),
        ("page_count", pa.int32()),
        ("format", pa.string()),
        ("tries", pa.int32()),
        ("flags", pa.list_(pa.string())),
        ("fingerprint", pa.string()),
        ("options", pa.string()),
        ("layout_fingerprint", pa.string()),
        ("secret", pa.int32()),
        (
            "splices",
            pa.list_(
                pa.struct(
                    [("page", pa.int32()), ("blocks", pa.list_(pa.int32())), ("part", pa.string()), ("attempt", pa.string())]
                )
            ),
        ),
    ]
)
_TOOK = 512  # pages: the first ones, which waited for the actors to start, are forgotten soon
# how long the source waits for the next segment, at first and at most: two GETs a second, and on a disk fewer looks while
# nothing comes. Twenty a second took 2 % of a core all through a run, and readers have a block in hand and one waiting
_POLL_LOCAL_S = 0.05
_POLL_REMOTE_S = 0.5
_LONGEST_POLL_S = 0.5


def encode_blocks(first: int, blocks: Sequence[Sequence[Span]]) -> pa.Table:
    """One row a span, schema `PLAN`; blocks are numbered from `first`."""
    rows = [
        {"block": block} | {name: getattr(span, name) for name in PLAN.names if name not in ("block", "splices")}
        | {"splices": [asdict(splice) for splice in span.splices]} for block, spans in enumerate(blocks, first) for span in spans
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PLAN)


def decode_spans(table: pa.Table) -> list[Span]:
    return [
        Span(
            row["doc_id"], row["revision"], tuple(row["pages"]), row["uri"], row["page_count"], row["format"],
            row["tries"], tuple(row["flags"]), row["fingerprint"],
            tuple(Splice(s["page"], tuple(s["blocks"]), s["part"], s["attempt"]) for s in row["splices"]),
            row["options"], row["layout_fingerprint"], row["secret"],
        )
        for row in table.to_pylist()
    ]  # fmt: skip


class Feed:
    """The driver's end of one graph's plan. `publish` from the planning thread, the rest from the receiving one."""

    def __init__(self, store: ObjectStore, folder: str, window: int, block_pages: int) -> None:
        self._store = store
        self.folder = folder
        self._window = window
        self._block_pages = block_pages
        self._segments = 0
        self._blocks = 0
        self._waiting: dict[tuple[str, int, int], Span] = {}  # pages as (doc, revision, page) published, not receipted
        self._since: dict[tuple[str, int, int], float] = {}  # when, of the same pages
        self._took: deque[float] = deque(maxlen=_TOOK)  # seconds of the pages that lately came back
        self._changed = threading.Condition()
        self._ended = False

    def publish(self, blocks: Sequence[Sequence[Span]]) -> bool:
        """Publishes blocks as one segment, waiting for room first; False when the feed was ended meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._waiting) < self._window)
            if self._ended:
                return False
            now = time.monotonic()
            for span in (span for spans in blocks for span in spans):
                self._waiting.update({(span.doc_id, span.revision, page): span for page in span.pages})
                self._since.update({(span.doc_id, span.revision, page): now for page in span.pages})
            self._put(encode_blocks(self._blocks, blocks))
            self._blocks += len(blocks)
            return True

    def room_blocks(self) -> int:
        """Blocks that one segment may hold: an eighth of the window, so that segments stay few and none is late."""
        return max(1, self._window // (8 * self._block_pages))

    def hungry(self) -> bool:
        """Whether less than half of what may be under way is, or nothing more will be taken."""
        return self._ended or len(self._waiting) < self._window / 2

    def received(self, doc_id: str, revision: int, pages: Sequence[int]) -> None:
        """These pages have come back, with a receipt or lost: they make room."""
        with self._changed:
            for page in pages:
                self._waiting.pop((doc_id, revision, page), None)
                if (since := self._since.pop((doc_id, revision, page), None)) is not None:
                    self._took.append(time.monotonic() - since)
            self._changed.notify_all()

    def took_s(self) -> float | None:
        """The longest that a page lately took from its publication until it came back; None: none did yet."""
        with self._changed:
            return max(self._took, default=None)

    def outstanding(self) -> list[Span]:
        """What was published and has not come back, as spans of the pages that are missing."""
        with self._changed:
            missing: dict[int, tuple[Span, list[int]]] = {}
            for (_, _, page), span in self._waiting.items():
                missing.setdefault(id(span), (span, []))[1].append(page)
        return [span.only(tuple(sorted(pages))) for span, pages in missing.values()]

    def end(self) -> None:
        """No more will come: the source returns, and what flows finishes. Safe to call twice and from a signal's wake."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._put(PLAN.empty_table())
            self._changed.notify_all()

    def abandon(self) -> None:
        """The graph is over and nobody reads the end any more: only whoever waits for room is told."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        return self._ended

    def _put(self, table: pa.Table) -> None:
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        self._segments += 1
        self._store.put(segment_key(self.folder, self._segments), sink.getvalue())


def segment_key(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.parquet"


def read_feed(store: ObjectStore, folder: str) -> Iterator[list[Span]]:
    """The source's end: block after block, waiting for segments that are not there yet."""
    number, shortest = 1, _POLL_LOCAL_S if store.is_local else _POLL_REMOTE_S
    wait = shortest
    while True:
        try:
            table = pq.read_table(io.BytesIO(store.get(segment_key(folder, number))))
        except FileNotFoundError:
            time.sleep(wait)
            wait = min(1.25 * wait, _LONGEST_POLL_S)
            continue
        wait = shortest
        if table.num_rows == 0:
            return
        for _, block in groupby(zip(table.column("block").to_pylist(), decode_spans(table), strict=True), itemgetter(0)):
            yield [span for _, span in block]
        number += 1
