"""The driver's books: which revisions are under way, what has come back, what is due to be finalized.

Invariant: a page is counted when its record is acknowledged by the ledger, a revision is finalized when every one of its
pages is, and nothing is held for a document that is not under way. A page that was read once keeps that reading when another
one of it fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipelines.assemble.finalize import Finalizer
from pipelines.observe.log import EventLog
from pipelines.observe.summary import Failure, Summary
from pipelines.schema import PageState, SpanReceipt
from pipelines.source.planner import LivePage, Planned, Revision
from pipelines.store.commit import Committer
from pipelines.store.records import Record, record

log = EventLog()

# threads; a document's Markdown is one GET a part and one PUT: 150 ms for 20 pages in an object store, 53 documents/s with 8
_FINALIZERS = 8


class Books:
    """`opened` is called by the planning thread, `received` by the one that reads the graph."""

    def __init__(self, committer: Committer, finalizer: Finalizer, summary: Summary) -> None:
        self._committer = committer
        self._finalizer = finalizer
        self._summary = summary
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._revisions: dict[str, Revision] = {}
        self._uris: dict[str, str] = {}
        self._finalizing = 0
        self._error: BaseException | None = None
        self._threads = ThreadPoolExecutor(_FINALIZERS, thread_name_prefix="finalize")

    def opened(self, planned: Planned) -> None:
        """Records of a planned object, and its revision if it has one."""
        revision = planned.revision
        if revision is not None:
            with self._lock:
                self._revisions[revision.doc_id] = revision
                if planned.spans:
                    self._uris[revision.doc_id] = planned.spans[0].uri
            self._summary.planned_pages += len(revision.waiting)
        uri = next((str(entry["uri"]) for entry in planned.records if entry.get("uri")), "")
        for entry in planned.records:
            self._count(entry, uri)
        due: Callable[[], None] | None = None
        if revision is not None and not revision.waiting:
            due = self._due_callback([revision])
        if planned.records or due:
            self._committer.add(planned.records, due)

    def received(self, receipts: list[SpanReceipt]) -> None:
        """Receipts on their way into the ledger; a page that came back before is not counted twice."""
        fresh = [receipt for receipt in receipts if receipt.doc_id in self._revisions]
        if fresh:
            records = [span_record(receipt, self._summary.run_id) for receipt in fresh]
            kept = [entry for receipt in fresh for entry in self._earlier(receipt)]
            # in one commit, behind the failure: the newest record of a page counts, and the failed row stays in the history
            self._committer.add(
                [*records, *(span_record(receipt, run_id) for receipt, run_id in kept)],
                lambda: self._acknowledged(fresh, [receipt for receipt, _ in kept]),
            )

    def settle(self) -> None:
        """Waits until everything received is committed and everything due is finalized and committed.

        Raises:
            Fenced, StoreUnavailable, DamagedOutput: whatever stopped the committer or a finalizer.
        """
        while True:
            self._committer.flush()
            with self._idle:
                self._idle.wait_for(lambda: self._finalizing == 0 or self._error is not None)
                if self._error is not None:
                    raise self._error
            if self._committer.idle():
                return

    def pending(self) -> int:
        """Pages of open revisions that have no receipt in the ledger."""
        with self._lock:
            return sum(len(revision.waiting) for revision in self._revisions.values())

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _earlier(self, receipt: SpanReceipt) -> Iterator[tuple[SpanReceipt, str]]:
        """Of pages that failed in this reading: their earlier rows, where those did not fail, and the runs that read them."""
        if PageState.FAILED not in receipt.states:
            return
        with self._lock:
            revision = self._revisions.get(receipt.doc_id)
            earlier = dict(revision.live) if revision is not None and revision.number == receipt.revision else {}
        for page, state in zip(receipt.pages, receipt.states, strict=True):
            was = earlier.get(page)
            if state == PageState.FAILED and was is not None and was.state != PageState.FAILED:
                yield SpanReceipt(
                    receipt.doc_id, receipt.revision, (page,), (was.state,), (was.code,), was.tries, was.attempt, was.part,
                    fingerprint=was.fingerprint,
                ), was.run_id  # fmt: skip

    def _acknowledged(self, receipts: list[SpanReceipt], kept: list[SpanReceipt]) -> None:
        complete: dict[str, Revision] = {}
        with self._lock:
            for receipt in (*receipts, *kept):
                revision = self._revisions.get(receipt.doc_id)
                if revision is None or revision.number != receipt.revision:
                    continue
                for page, state, code in zip(receipt.pages, receipt.states, receipt.codes, strict=True):
                    revision.live[page] = LivePage(
                        receipt.part, receipt.attempt, state, code, receipt.tries, receipt.fingerprint, self._summary.run_id
                    )
                    revision.waiting.discard(page)
                if not revision.waiting:
                    complete[revision.doc_id] = revision
        self._summary.committed(receipts, self._uris)
        stays = {(receipt.doc_id, page) for receipt in kept for page in receipt.pages}
        for receipt in receipts:
            span = f"{receipt.pages[0] + 1}-{receipt.pages[-1] + 1}"
            log.debug("span_committed", document=receipt.doc_id, span=span, pages=len(receipt.pages), attempt=receipt.attempt)
            messages = receipt.messages or ("",) * len(receipt.pages)
            for page, code, message in zip(receipt.pages, receipt.codes, messages, strict=True):
                if code:
                    message += "; the earlier reading stays" * ((receipt.doc_id, page) in stays)
                    log.info("page_failed", document=receipt.doc_id, span=span, page=page + 1, code=code, error=message)
                    self._summary.failed(Failure(self._uris.get(receipt.doc_id, ""), receipt.doc_id, page, code, message))
        if complete:
            self._due_callback(list(complete.values()))()

    def _due_callback(self, revisions: list[Revision]) -> Callable[[], None]:
        def due() -> None:
            with self._idle:
                self._finalizing += len(revisions)
            for revision in revisions:
                self._threads.submit(self._finalize, revision)

        return due

    def _finalize(self, revision: Revision) -> None:
        try:
            done = self._finalizer.finalize(revision)
            self._count(done)
            uri = self._uris.get(revision.doc_id, "")
            log.info("document_done", document=revision.doc_id, state=done["state"], pages=done["page_count"], uri=uri)
            self._summary.document_done(revision.doc_id, uri, done["page_count"], done["state"])
            self._committer.add([done])
        except BaseException as error:  # kept for settle(): the revision stays open, the next run finds it
            self._error = error
        finally:
            with self._idle:
                self._revisions.pop(revision.doc_id, None)
                self._uris.pop(revision.doc_id, None)
                self._finalizing -= 1
                self._idle.notify_all()

    def _count(self, entry: Record, uri: str = "") -> None:
        if entry["kind"] == "document":
            self._summary.documents[entry["state"]] += 1
        code = entry.get("error_code")
        if code and entry["kind"] in ("source", "document"):
            if entry["kind"] == "source":
                self._summary.source_errors[code] += 1
            log.info(f"{entry['kind']}_failed", document=entry.get("doc_id"), code=code, uri=entry.get("uri") or uri)
            failure = Failure(entry.get("uri") or uri, entry.get("doc_id"), None, code, entry.get("error_message") or "")
            self._summary.failed(failure)


def span_record(receipt: SpanReceipt, run_id: str) -> Record:
    return record(
        "span", doc_id=receipt.doc_id, revision=receipt.revision, pages=list(receipt.pages), states=list(receipt.states),
        codes=list(receipt.codes), tries=receipt.tries, attempt=receipt.attempt, part=receipt.part, run_id=run_id or None,
        fingerprint=receipt.fingerprint or None,
    )  # fmt: skip
