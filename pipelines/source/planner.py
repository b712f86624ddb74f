"""Planning: from what changed to spans, and the records that open their revisions.

Invariant: whatever a document still needs is decided from the ledger page by page; the plan of an earlier run is never
read. A document that several URIs hold is planned once; an open revision is finished before another is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from pipelines.errors import MAX_TRIES, PagesOutOfRange, SourceChanged, SourceUnreadable, by_code, is_transient
from pipelines.options import Prints
from pipelines.schema import PageError, Span, Splice
from pipelines.source.changes import Candidate, ChangeDetector, Stranded, Verdict
from pipelines.source.manifest import page_indices
from pipelines.source.probing import Probed
from pipelines.store.records import Record, record
from pipelines.store.state import LedgerState

Blocks = Sequence[Sequence[int] | None]  # parallel to pages, block indices; None: the whole page


@dataclass(slots=True, frozen=True)
class LivePage:
    """Where the live row of a page is, and how the page ended."""

    part: str
    attempt: str
    state: str
    code: str
    tries: int
    fingerprint: str = ""  # with which it was read, and by which run; "": as its revision says
    run_id: str = ""


@dataclass(slots=True)
class Revision:
    """A reading of a document that is under way."""

    doc_id: str
    number: int
    page_count: int
    waiting: set[int]  # pages that no span covers yet
    live: dict[int, LivePage] = field(default_factory=dict)  # of the document, this revision's over earlier ones'


@dataclass(slots=True)
class Planned:
    """What one object leads to: records to append first, then (perhaps) a revision with its spans."""

    records: list[Record]
    revision: Revision | None = None
    spans: list[Span] = field(default_factory=list)
    gone: PageError | None = None  # the spans cannot be read any more: their pages end with this


@dataclass(slots=True, frozen=True)
class Document:
    """A document that was opened, and where its bytes can be had."""

    doc_id: str
    uri: str
    format: str
    page_count: int
    flags: tuple[str, ...]
    # what a manifest says of it
    pages: str = ""
    options: str = ""
    secret: int = 0


class Planner:
    """Plans the documents of one run."""

    def __init__(
        self, state: LedgerState, changes: ChangeDetector, run_id: str, fingerprint: str, span_pages: int,
        prints: Prints | None = None,
    ) -> None:  # fmt: skip
        self._state = state
        self._changes = changes
        self._run_id = run_id
        self._fingerprint = fingerprint
        self._span_pages = span_pages
        self._prints: Prints = prints or (lambda _: (fingerprint, ""))
        self.repeated = 0  # rows of a manifest that ask for other pages or options of a document that an earlier row named
        self._special: dict[str, tuple[str, str]] = {}  # (pages, options) of planned documents that have any
        self.reached = 0  # candidates of which everything was yielded
        self._planned: set[bytes] = set()  # documents of this run: half a digest each, 20,000,000 fit in 2 GiB

    def plan(
        self,
        batches: Iterable[pa.Table],
        probe_all: Callable[[Iterator[Candidate]], Iterator[Probed]],
        only: Verdict | None = None,
    ) -> Iterator[Planned]:
        """Everything that a listing leads to; of each batch what needs no probing comes first.

        Args:
            only: objects of other verdicts are left.
        """
        for batch in batches:
            found = self._merged([candidate for candidate in self._changes.compare(batch) if only in (None, candidate.verdict)])
            known = (Verdict.OPEN, Verdict.RETRY_PAGES, Verdict.PARTIAL)
            yield from self._unchanged([candidate for candidate in found if candidate.verdict in known])
            for probed in probe_all(candidate for candidate in found if candidate.verdict not in known):
                self.reached += 1
                yield self.probed(probed)

    def _merged(self, found: list[Candidate]) -> list[Candidate]:
        """Rows of a manifest that name one object as one: all pages that they ask for, the options of the first."""
        by_uri: dict[str, Candidate] = {}
        for candidate in found:
            before = by_uri.setdefault(candidate.uri, candidate)
            if before is candidate:
                continue
            self.reached += 1
            if before.options != candidate.options:
                self.repeated += 1
            else:
                pages = f"{before.pages},{candidate.pages}" if before.pages and candidate.pages else ""
                by_uri[candidate.uri] = replace(before, pages=pages)
        return list(by_uri.values())

    # -- objects that need no fetching ---------------------------------------------------------------------------------

    def _unchanged(self, candidates: list[Candidate]) -> Iterator[Planned]:
        documents = [
            Document(c.doc_id, c.uri, c.format or "", c.page_count or 0, c.flags, c.pages, c.options, c.secret)
            for c in candidates
            if c.doc_id is not None and self._first_time(c.doc_id, c)
        ]
        before = self.reached
        for document, revision, spans, records in self._remaining(documents):
            del document
            self.reached += 1
            yield Planned(records, revision, spans)
        self.reached = before + len(candidates)

    # -- objects that were fetched -------------------------------------------------------------------------------------

    def probed(self, probed: Probed) -> Planned:
        """What an object that was fetched leads to."""
        was, error = probed.candidate, probed.error
        source = {"presence": "present", "run_id": self._run_id, **was.identity()}
        retry = error is not None and error.transient
        # a try counts up only on the same bytes; a changed object begins anew
        tries = was.tries + 1 if was.verdict is Verdict.RETRY else 1
        if probed.doc_id is None:
            assert error is not None
            found = record(
                "source", **source, doc_id=was.doc_id, error_code=error.code, error_message=error.message,
                tries=tries, retryable=int(retry and tries < MAX_TRIES),
            )  # fmt: skip
            return Planned([found])
        opened = probed.probe
        found = record(
            "source", **source, doc_id=probed.doc_id, format=opened.format if opened else None,
            page_count=opened.page_count if opened else None, flags=list(opened.flags) if opened else [],
        )  # fmt: skip
        if not self._first_time(probed.doc_id, was):
            return Planned([found])
        if opened is None:
            assert error is not None
            return Planned([found, *self._unopened(probed.doc_id, error.code, error.message, tries)])
        document = Document(
            probed.doc_id, was.uri, opened.format, opened.page_count, opened.flags, was.pages, was.options, was.secret
        )
        pages = page_indices(was.pages, opened.page_count)
        if not pages:
            error_words = f"pages {was.pages}: the document has {opened.page_count}"
            return Planned([found | {"error_code": PagesOutOfRange.code, "error_message": error_words, "retryable": 0}])
        known = self._changes.document(probed.doc_id)
        if known is None or (known[1] is None and known[3] is None):  # new, or never opened before
            number = 1 if known is None else known[0] + 1
            revision = Revision(probed.doc_id, number, opened.page_count, set(pages))
            return Planned([found, self._open(revision, pages, was.options)], revision, self._spans(document, number, pages, 1))
        if known[1] is None and known[2] == 0 and not known[5]:
            return Planned([found])  # complete, and nothing to try again: a copy, or a name that changed
        for _, started, spans, records in self._remaining([document]):
            return Planned([found, *records], started, spans)
        return Planned([found])

    def _unopened(self, doc_id: str, code: str, message: str, tries: int) -> list[Record]:
        known = self._changes.document(doc_id)
        if known is not None and (known[3] is not None or known[2] == 0):
            return []  # a copy of a document that is done: its end is already recorded
        number = 1 if known is None else known[0] + 1
        again = int(is_transient(code) and tries < MAX_TRIES)
        state = "encrypted" if code == by_code()["ENCRYPTED"].code else "failed"
        return [
            record("revision", doc_id=doc_id, revision=number, pages=[], fingerprint=self._fingerprint, run_id=self._run_id),
            record(
                "document", doc_id=doc_id, revision=number, state=state, error_code=code, error_message=message,
                ok=0, blank=0, degraded=0, failed=0, retryable=again, tries=tries, run_id=self._run_id,
            ),
        ]  # fmt: skip

    # -- documents whose bytes are gone --------------------------------------------------------------------------------

    def stranded(self, below: str | None) -> Iterator[Planned]:
        """Unfinished revisions that nobody can finish; `below`: as of `ChangeDetector.stranded`. Called after `plan`."""
        for lost in self._changes.stranded(below):
            if not self._first_time(lost.doc_id):
                continue  # another URI brought its bytes in this run
            document = Document(lost.doc_id, lost.uri, lost.format, lost.page_count, ())
            for _, revision, spans, records in self._remaining([document]):
                yield Planned(records, revision, spans, _gone(lost))

    # -- what somebody asked to read again -----------------------------------------------------------------------------

    def again(self, chosen: Sequence[tuple[Document, tuple[int, ...], Blocks | None]]) -> Iterator[Planned]:
        """A new revision of these pages of each document, however they ended; of one that has an open revision, what is
        missing of that."""
        wanted = pa.array([document.doc_id for document, _, _ in chosen])
        opened = set(self._state.open_revisions(wanted).column("doc_id").to_pylist())
        live = self._live(wanted)
        for document, pages, blocks in chosen:
            if not self._first_time(document.doc_id):
                continue
            known = self._changes.document(document.doc_id)
            assert known is not None
            document = replace(document, options=known[4])  # a document keeps its options
            if document.doc_id in opened:
                for _, revision, spans, records in self._remaining([document]):
                    yield Planned(records, revision, spans)
                continue
            revision = Revision(document.doc_id, known[0] + 1, document.page_count, set(pages), live.get(document.doc_id, {}))
            spans = self._spans(document, revision.number, pages, 1, splices(pages, blocks, revision.live))
            opening = self._open(revision, pages, document.options) | {"tries": 1, "blocks": blocks}
            yield Planned([opening], revision, spans)

    # -- what a known document still needs -----------------------------------------------------------------------------

    def _remaining(self, documents: list[Document]) -> Iterator[tuple[Document, Revision, list[Span], list[Record]]]:
        if not documents:
            return
        by_id = {document.doc_id: document for document in documents}
        wanted = pa.array(list(by_id))
        live = self._live(wanted)
        opened = {row["doc_id"]: row for row in self._state.open_revisions(wanted).to_pylist()}
        for doc_id, document in by_id.items():
            pages = live.get(doc_id, {})
            if doc_id in opened:
                number, missing = opened[doc_id]["revision"], tuple(opened[doc_id]["missing"])
                revision = Revision(doc_id, number, document.page_count, set(missing), pages)
                document = replace(document, options=opened[doc_id]["options"] or "")
                if tries := opened[doc_id]["tries"]:  # of a reprocess
                    spliced = splices(opened[doc_id]["pages"], opened[doc_id]["blocks"], pages)
                    spans = self._spans(document, number, missing, tries, spliced)
                else:
                    spans = self._retries(document, number, missing, pages)
                yield document, revision, spans, []
                continue
            failed = tuple(i for i, p in sorted(pages.items()) if is_transient(p.code) and p.code and p.tries < MAX_TRIES)
            known = self._changes.document(doc_id)
            if known is None:
                continue
            if failed:
                document = replace(document, options=known[4])
            todo = failed or tuple(i for i in page_indices(document.pages, document.page_count) if i not in pages)
            if todo:
                revision = Revision(doc_id, known[0] + 1, document.page_count, set(todo), pages)
                spans = self._retries(document, revision.number, todo, pages)
                yield document, revision, spans, [self._open(revision, todo, document.options)]

    def _live(self, doc_ids: pa.Array) -> dict[str, dict[int, LivePage]]:
        """Live pages of complete revisions, with those of an open one over them: what finalize will have to read."""
        self._state.ask(doc_ids)
        rows = self._state.rows("""
            SELECT doc_id, page_index, part, attempt, state, code, tries, fingerprint, run_id, 0 AS rank
            FROM live_page_asked
            UNION ALL
            SELECT p.doc_id, p.page_index, coalesce(m.new_part, p.part), p.attempt, p.state, p.code, p.tries,
                   p.fingerprint, p.run_id, 1
            FROM revision_page_asked p LEFT JOIN part_moved m ON m.old_part = p.part
            ANTI JOIN document_all d ON d.doc_id = p.doc_id AND d.revision = p.revision
            ORDER BY rank""")
        found: dict[str, dict[int, LivePage]] = {}
        for doc_id, page, part, attempt, state, code, tries, fingerprint, run_id, _ in rows:
            found.setdefault(str(doc_id), {})[int(str(page))] = LivePage(
                str(part), str(attempt), str(state), str(code), int(str(tries)), str(fingerprint or ""), str(run_id or "")
            )
        return found

    def _retries(self, document: Document, number: int, pages: tuple[int, ...], live: dict[int, LivePage]) -> list[Span]:
        """Spans of these pages; those that were tried equally often go together."""
        by_tries: dict[int, list[int]] = {}
        for page in pages:
            before = live[page].tries if page in live else 0
            by_tries.setdefault(before + 1, []).append(page)
        return [span for tries, group in sorted(by_tries.items()) for span in self._spans(document, number, tuple(group), tries)]

    def _spans(
        self, document: Document, number: int, pages: tuple[int, ...], tries: int, spliced: tuple[Splice, ...] = ()
    ) -> list[Span]:
        fingerprint, layout_fingerprint = self._prints(document.options) if document.options else ("", "")
        whole = Span(
            document.doc_id, number, pages, document.uri, document.page_count, document.format, tries, document.flags,
            fingerprint, spliced, document.options, layout_fingerprint, document.secret,
        )  # fmt: skip
        return whole.cut(self._span_pages)

    def _open(self, revision: Revision, pages: tuple[int, ...], options: str) -> Record:
        return record(
            "revision", doc_id=revision.doc_id, revision=revision.number, pages=list(pages), options=options or None,
            fingerprint=self._prints(options)[0] if options else self._fingerprint, run_id=self._run_id,
        )  # fmt: skip

    def _first_time(self, doc_id: str, row: Candidate | None = None) -> bool:
        half = bytes.fromhex(doc_id)[:16]
        said = (row.pages, row.options) if row is not None else ("", "")
        if half in self._planned:
            self.repeated += row is not None and self._special.get(doc_id, ("", "")) != said
            return False
        if any(said):
            self._special[doc_id] = said
        self._planned.add(half)
        return True


def splices(pages: Sequence[int], blocks: Blocks | None, live: Mapping[int, LivePage]) -> tuple[Splice, ...]:
    """Those pages of which only some blocks are to be read, with where their rows are."""
    return tuple(
        Splice(page, tuple(some), live[page].part, live[page].attempt)
        for page, some in zip(pages, blocks or (), strict=bool(blocks))
        if some and page in live
    )


def _gone(lost: Stranded) -> PageError:
    if lost.replaced:
        return PageError(SourceChanged.code, "fetch", f"{lost.uri} holds another document since this one was planned")
    return PageError(SourceUnreadable.code, "fetch", f"{lost.uri} vanished before this page was read")
