"""An output made commit by commit, for tests of what readers, compaction and garbage collection make of it."""

from __future__ import annotations

from pathlib import Path

import pagemill
from pipelines.books import span_record
from pipelines.config import load
from pipelines.lanes import Lane
from pipelines.output import open_output
from pipelines.schema import PageError, Span
from pipelines.stages import begin, failed_pages
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import PartWriter
from pipelines.store.records import Record, record

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


class Made:
    """An output made commit by commit, without engines."""

    def __init__(self, root: Path, lane: Lane | None = None, beat_s: float = 60) -> None:
        self.root = str(root)
        self.store: ObjectStore = open_output(self.root, load().store, lane.count if lane else 1)
        self.ledger = Ledger(self.store, lane, merge_every=3)
        self.ledger.claim("run", 1, beat_s)
        self.writer = PartWriter(self.store, "run", "print")

    def source(self, uri: str, doc_id: str | None, **more: object) -> None:
        self.commit(record("source", uri=uri, presence="present", doc_id=doc_id, **more))

    def opened(self, doc_id: str, revision: int, pages: list[int]) -> None:
        self.commit(record("revision", doc_id=doc_id, revision=revision, pages=pages, fingerprint="print"))

    def span(self, doc_id: str, revision: int, pages: tuple[int, ...], text: str, commit: bool = True) -> None:
        works = begin([Span(doc_id, revision, pages, "uri", 3, "pdf")])
        for page in works[0].pages:
            page.markdown = f"{text} {page.page_index}"
        receipts = self.writer.write(works)
        if commit:
            self.commit(*[span_record(receipt, "run") for receipt in receipts])

    def failed(self, doc_id: str, revision: int, page: int) -> None:
        work = failed_pages(Span(doc_id, revision, (page,), "uri", 3, "pdf"), PageError("PAGE_TIMEOUT", "rasterize", "slow"))
        self.commit(*[span_record(receipt, "run") for receipt in self.writer.write([work])])

    def complete(self, doc_id: str, revision: int, ok: int, failed: int = 0) -> None:
        state = "partial" if failed else "ok"
        count = ok + failed
        self.commit(
            record(
                "document",
                doc_id=doc_id,
                revision=revision,
                state=state,
                page_count=count,
                ok=ok,
                blank=0,
                degraded=0,
                failed=failed,
            )
        )

    def commit(self, *records: Record) -> None:
        self.ledger.append(records)

    def markdown(self) -> dict[tuple[str, int], str]:
        rows = pagemill.read(self.root, "pages").to_pylist()
        assert len(rows) == len({(row["doc_id"], row["page_index"]) for row in rows})
        return {(row["doc_id"][0], row["page_index"]): row["markdown"] for row in rows}
