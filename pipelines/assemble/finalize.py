"""Finalize: a complete revision becomes the document's Markdown and its document record.

Invariant: it reads only what is committed, streams the pages part by part, and names its output by content; run again
after a crash it writes the same object and the same record.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.assemble.document import PageText, document_markdown
from pipelines.errors import MAX_TRIES, DamagedOutput, is_transient
from pipelines.schema import PageState
from pipelines.source.planner import LivePage, Revision
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder
from pipelines.store.records import Record, record

# of blocks what decides where a table crosses pages; whole blocks, and Arrow's data sets, took four times the driver's CPU
_COLUMNS = [
    "doc_id", "page_index", "attempt", "state", "error_code", "markdown",
    *(f"blocks.list.element.{name}" for name in ("label", "content", "html")),
]  # fmt: skip


class Finalizer:
    """Verb `finalize`: writes a document's Markdown and returns the record that completes its revision."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._lately = _Lately(store)

    def finalize(self, revision: Revision) -> Record:
        """
        Raises:
            DamagedOutput: a part that the ledger names does not hold a page that it should.
            StoreUnavailable: the revision stays open; the next run finds it in the ledger.
        """
        markdown = document_markdown(self._pages(revision)).encode("utf-8", "replace")
        key = f"{document_folder(revision.doc_id)}/{hashlib.sha256(markdown).hexdigest()}.md"
        self._store.put(key, markdown)
        return document_record(revision, key, self._run_id)

    def _pages(self, revision: Revision) -> Iterator[PageText]:
        for (part, attempt), group in groupby(sorted(revision.live.items()), key=lambda item: (item[1].part, item[1].attempt)):
            yield from self._from_part(revision.doc_id, part, attempt, [page for page, _ in group])

    def _from_part(self, doc_id: str, part: str, attempt: str, pages: list[int]) -> Iterator[PageText]:
        table = self._lately.rows(part, doc_id)
        rows = {row["page_index"]: row for row in table.to_pylist() if row["attempt"] == attempt}
        for page in pages:
            if page not in rows:
                raise DamagedOutput(f"{part}: page {page} of {doc_id} is missing, though the ledger names it")
            row = rows[page]
            yield PageText(page, row["state"], row["error_code"], row["markdown"], row["blocks"])


_KEPT = 8  # parts of one row group
_MOST_BYTES = 8 << 20  # of one, decoded: a part of 32 pages has some 2 MiB; larger ones are read again for each document


class _Lately:
    """Small parts that were lately read, decoded: short documents that were read as one block lie in one part, and are
    finalized one after the other. Safe in several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[str, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, part: str, doc_id: str) -> pa.Table:
        """As `rows_of`, of a part by its key."""
        with self._lock:
            table = self._kept.get(part)
        if table is None:
            data = pa.BufferReader(self._store.get(part))
            file = pq.ParquetFile(data)
            if file.num_row_groups > 1:
                return rows_of(data, doc_id)
            table = file.read(columns=_COLUMNS, use_threads=False)
            if table.nbytes <= _MOST_BYTES:
                with self._lock:
                    self._kept[part] = table
                    if len(self._kept) > _KEPT:
                        self._kept.popitem(last=False)
        return table.filter(pc.equal(table.column("doc_id"), doc_id))


def rows_of(part: pa.BufferReader, doc_id: str) -> pa.Table:
    """A document's rows of a part, the columns of `_COLUMNS`; row groups that cannot hold any are not decoded."""
    file = pq.ParquetFile(part)
    groups = list(range(file.num_row_groups))
    if len(groups) > 1:
        column = file.schema.names.index("doc_id")
        groups = [number for number in groups if _may_hold(file.metadata.row_group(number).column(column).statistics, doc_id)]
    table = file.read_row_groups(groups, columns=_COLUMNS, use_threads=False)
    return table.filter(pc.equal(table.column("doc_id"), doc_id))


def _may_hold(bounds: Any, doc_id: str) -> bool:
    return bounds is None or not bounds.has_min_max or bounds.min <= doc_id <= bounds.max


def document_record(revision: Revision, markdown: str | None, run_id: str) -> Record:
    """The record that completes a revision: counts of the whole document as it now stands."""
    states = [page.state for page in revision.live.values()]
    failed = states.count(PageState.FAILED)
    return record(
        "document",
        doc_id=revision.doc_id,
        revision=revision.number,
        page_count=revision.page_count,
        state="ok" if not failed else "failed" if failed == len(states) else "partial",
        ok=states.count(PageState.OK),
        blank=states.count(PageState.BLANK),
        degraded=states.count(PageState.DEGRADED),
        failed=failed,
        retryable=sum(map(_retryable, revision.live.values())),
        markdown=markdown,
        run_id=run_id,
    )


def _retryable(page: LivePage) -> bool:
    return bool(page.code) and is_transient(page.code) and page.tries < MAX_TRIES
