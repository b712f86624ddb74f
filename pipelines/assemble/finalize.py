"""Finalize: a complete revision becomes the document's Markdown and its document record.

Invariant: it reads only what is committed, streams the pages part by part, and names its output by content; run again
after a crash it writes the same object and the same record.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from itertools import groupby

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.assemble.document import PageText, document_markdown
from pipelines.errors import MAX_TRIES, DamagedOutput, is_transient
from pipelines.schema import PageState
from pipelines.source.planner import LivePage, Revision
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder
from pipelines.store.records import Record, record

_COLUMNS = ["doc_id", "page_index", "attempt", "state", "error_code", "markdown", "blocks"]


class Finalizer:
    """Verb `finalize`: writes a document's Markdown and returns the record that completes its revision."""

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id

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
        table = pq.read_table(io.BytesIO(self._store.get(part)), columns=_COLUMNS, filters=pc.field("doc_id") == doc_id)
        rows = {row["page_index"]: row for row in table.to_pylist() if row["attempt"] == attempt}
        for page in pages:
            if page not in rows:
                raise DamagedOutput(f"{part}: page {page} of {doc_id} is missing, though the ledger names it")
            row = rows[page]
            yield PageText(page, row["state"], row["error_code"], row["markdown"], row["blocks"])


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
