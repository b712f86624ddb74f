"""Reprocessing: pages that somebody chose become new revisions of their documents, read again from the same bytes.

Invariant: a revision is opened only for a document whose bytes were just fetched, hashed and opened; what cannot be had as it
was is named and left as it is. What an interrupted run of the same request opened or completed is not chosen again, so that
requests may be repeated until they are done.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import SourceChanged, SourceUnreadable
from pipelines.fingerprint import prints_of
from pipelines.lanes import Lane, number_of
from pipelines.observe.summary import Failure, Summary
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate, ChangeDetector, Verdict
from pipelines.source.planner import Blocks, Document, Planned, Planner
from pipelines.source.probing import Probed, Prober
from pipelines.stages import Site
from pipelines.store.choosing import Choice, choose, unknown_ids
from pipelines.store.ledger import Ledger
from pipelines.store.reading import Output
from pipelines.store.state import LedgerState

_BATCH_PAGES = 20_000  # chosen pages of one batch of documents: each costs a few passes over the ledger
_BATCH_DOCUMENTS = 5_000
_DONE = ("finished", "nothing_to_do")  # ends of a run after which the same request is a new one


@dataclass(slots=True, frozen=True)
class _Chosen:
    doc_id: str
    pages: tuple[int, ...]
    blocks: Blocks | None  # parallel to pages


class Reprocess:
    """What one run reads again."""

    def __init__(self, site: Site, choice: Choice, ledger: Ledger, summary: Summary) -> None:
        self._site, self._choice, self._ledger, self._summary = site, choice, ledger, summary
        summary.request = choice.digest(site.fingerprint)

    def plan(self) -> Iterator[Planned]:
        """
        Raises:
            ConfigError: the choice is none, or asks for what is not there.
        """
        config, site = self._site.config, self._site
        with (
            tempfile.TemporaryDirectory(prefix="pagemill-plan-") as scratch,
            Output(site.output, config.store.storage_options, parts=False) as output,
        ):
            prints = prints_of(config, site.weights)
            choose(output, self._choice, prints)
            _keep_lane(output, self._ledger.lane)
            if unknown := unknown_ids(output, self._choice):
                self._summary.listed["unknown_id"] += unknown
            state = LedgerState(self._ledger.paths, Path(scratch))
            changes = ChangeDetector(state)
            cache = DocumentCache.of(config.source)
            prober = Prober(config, cache)
            planner = Planner(state, changes, site.run_id, site.fingerprint, config.source.span_pages, prints)
            batch = _Batch(state, self._interrupted(state), prober, planner, self._summary)
            try:
                yield from batch.interrupted()
                yield from batch.unopened(_unopened(output))
                for documents in _documents(output):
                    yield from batch.again(documents)
                yield from planner.stranded(None)
            finally:
                prober.close()
                self._summary.asked_source(cache.requests)
                state.close()

    def _interrupted(self, state: LedgerState) -> list[str]:
        """Runs of this very request that did not end, since the last one that did."""
        rows = state.rows(
            """SELECT run_id, summary FROM ledger WHERE kind = 'run' AND contains(summary, ?) ORDER BY number, "row" """,
            [self._summary.request],
        )
        ends = {str(run_id): json.loads(str(summary)) for run_id, summary in rows if run_id != self._site.run_id}
        found: list[str] = []
        for run_id, summary in reversed(ends.items()):
            if summary.get("request") != self._summary.request:
                continue
            if summary.get("status") in _DONE:
                break
            found.append(run_id)
        return found


class _Batch:
    """Some chosen documents at a time: looked up, looked at, planned."""

    def __init__(self, state: LedgerState, interrupted: list[str], prober: Prober, planner: Planner, summary: Summary) -> None:
        self._state, self._prober, self._planner, self._summary = state, prober, planner, summary
        self._interrupted = interrupted

    def interrupted(self) -> Iterator[Planned]:
        """What interrupted runs of this request began and did not end."""
        rows = self._state.rows(
            """SELECT DISTINCT r.doc_id FROM revision_opened r
               ANTI JOIN document_all d ON d.doc_id = r.doc_id AND d.revision = r.revision
               WHERE list_contains($1, r.run_id) ORDER BY r.doc_id""",
            [self._interrupted],
        )
        for first in range(0, len(rows), _BATCH_DOCUMENTS):
            some = [str(row[0]) for row in rows[first : first + _BATCH_DOCUMENTS]]
            sources = self._sources(pa.array(some))
            for doc_id in some:
                yield from self._finish(doc_id, sources)

    def again(self, chosen: Sequence[_Chosen]) -> Iterator[Planned]:
        """Documents that were opened."""
        wanted = pa.array([entry.doc_id for entry in chosen])
        sources = self._sources(wanted)
        opened = {row["doc_id"]: row for row in self._state.open_revisions(wanted).to_pylist()}
        begun = self._begun(wanted)
        new: list[_Chosen] = []
        for entry in chosen:
            if entry.doc_id in begun:
                self._summary.listed["done"] += 1
            elif entry.doc_id in opened:
                if not set(entry.pages) <= set(opened[entry.doc_id]["pages"]):
                    self._wait()
                yield from self._finish(entry.doc_id, sources)
            else:
                new.append(entry)
        there = self._with_bytes(new, sources)
        self._summary.listed["again"] += len(there)
        yield from self._planner.again(there)

    def unopened(self, found: Iterator[Candidate]) -> Iterator[Planned]:
        """Documents that could not be opened, and objects that could not be fetched: all their pages, if they can now."""
        for probed in self._prober.probe_all(found):
            expected = probed.candidate.doc_id
            if probed.error is not None:
                self._leave(probed.candidate.uri, expected, probed.error.code, probed.error.message)
            elif expected is not None and probed.doc_id != expected:
                self._leave(probed.candidate.uri, expected, SourceChanged.code, "holds another document now: ingest reads it")
            else:
                self._summary.listed["again"] += 1
                yield self._planner.probed(probed)

    def _finish(self, doc_id: str, sources: dict[str, list[dict[str, Any]]]) -> Iterator[Planned]:
        """An unfinished reading comes before another of that document; one that no object holds any more is stranded."""
        if doc_id in sources:
            self._summary.listed["open"] += 1
            yield from self._planner.again([(_document(doc_id, sources[doc_id][0]), (), None)])

    def _wait(self) -> None:
        self._summary.listed["waiting"] += 1
        self._summary.message = (
            f"{self._summary.listed['waiting']} documents had an unfinished reading, which this run went on with: "
            "run the same command again for the pages that were asked for"
        )

    def _with_bytes(
        self, chosen: Sequence[_Chosen], sources: dict[str, list[dict[str, Any]]]
    ) -> list[tuple[Document, tuple[int, ...], Blocks | None]]:
        """Of these documents the ones whose bytes were had and opened, from whichever URI has them."""
        there: dict[str, Document] = {}
        why: dict[str, tuple[str, str, str]] = {}
        waiting = {entry.doc_id: list(sources.get(entry.doc_id, [])) for entry in chosen}
        while left := [(doc_id, rows.pop(0)) for doc_id, rows in waiting.items() if rows and doc_id not in there]:
            for probed in self._prober.probe_all(_candidate(row) for _, row in left):
                doc_id = str(probed.candidate.doc_id)
                if problem := _problem(probed):
                    why[doc_id] = (probed.candidate.uri, *problem)
                else:
                    row = next(row for known, row in left if known == doc_id)
                    there[doc_id] = _document(doc_id, row)
        for entry in chosen:
            if entry.doc_id not in there:
                gone = ("", SourceUnreadable.code, "no object holds it any more")
                uri, code, message = why.get(entry.doc_id, gone)
                self._leave(uri, entry.doc_id, code, message)
        return [(there[entry.doc_id], entry.pages, entry.blocks) for entry in chosen if entry.doc_id in there]

    def _sources(self, doc_ids: pa.Array) -> dict[str, list[dict[str, Any]]]:
        """The objects that hold each document, as the ledger has them."""
        self._state.con.register("held", pa.table({"doc_id": doc_ids}))
        rows = self._state.table(
            """SELECT doc_id, uri, size, etag, mtime_ns, ctime_ns, inode, format, page_count, flags FROM source_latest
               WHERE presence = 'present' AND error_code IS NULL AND doc_id IN (SELECT doc_id FROM held) ORDER BY uri"""
        ).to_pylist()
        self._state.con.unregister("held")
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(row["doc_id"], []).append(row)
        return found

    def _begun(self, doc_ids: pa.Array) -> set[str]:
        """Documents of which interrupted runs of this request opened a revision."""
        if not self._interrupted:
            return set()
        self._state.con.register("held", pa.table({"doc_id": doc_ids}))
        rows = self._state.rows(
            """SELECT DISTINCT doc_id FROM revision_opened
               WHERE list_contains($1, run_id) AND doc_id IN (SELECT doc_id FROM held)""",
            [self._interrupted],
        )
        self._state.con.unregister("held")
        return {str(row[0]) for row in rows}

    def _leave(self, uri: str, doc_id: str | None, code: str, message: str) -> None:
        self._summary.listed["left_alone"] += 1
        self._summary.source_errors[code] += 1
        self._summary.failed(Failure(uri, doc_id, None, code, f"left as it was: {message}"))


def _problem(probed: Probed) -> tuple[str, str] | None:
    """Why a document cannot be read again from this object."""
    if probed.error is not None:
        return probed.error.code, probed.error.message
    if probed.doc_id != probed.candidate.doc_id:
        return SourceChanged.code, "it holds another document now"
    return None


def _candidate(row: dict[str, Any]) -> Candidate:
    names = ("uri", "size", "etag", "mtime_ns", "ctime_ns", "inode", "doc_id")
    return Candidate(verdict=Verdict.CHANGED, **{name: row[name] for name in names})


def _document(doc_id: str, row: dict[str, Any]) -> Document:
    return Document(doc_id, row["uri"], row["format"] or "", row["page_count"] or 0, tuple(row["flags"] or ()))


def _keep_lane(output: Output, lane: Lane) -> None:
    """Of what is chosen only what this lane reads: documents that belong to it, and objects that it looks at."""
    if lane.count == 1:
        return
    con = output.con
    con.execute(
        """DELETE FROM chosen WHERE page_index IS NOT NULL
           AND doc_id NOT IN (SELECT doc_id FROM document_lane WHERE lane = ?)""",
        [lane.number],
    )
    uris = con.execute("SELECT DISTINCT uri FROM chosen WHERE page_index IS NULL").fetchall()
    foreign = pa.table({"uri": pa.array([uri for (uri,) in uris if number_of(uri, lane.count) != lane.number], pa.string())})
    con.register("of_other_lanes", foreign)
    con.execute("DELETE FROM chosen WHERE page_index IS NULL AND uri IN (SELECT uri FROM of_other_lanes)")
    con.unregister("of_other_lanes")


def _documents(output: Output) -> Iterator[list[_Chosen]]:
    """Chosen pages by document, in batches."""
    rows = output.con.cursor().execute(
        """SELECT doc_id, list(page_index ORDER BY page_index), list(blocks ORDER BY page_index), bool_and(blocks IS NULL)
           FROM chosen WHERE page_index IS NOT NULL GROUP BY doc_id ORDER BY doc_id"""
    )
    batch: list[_Chosen] = []
    pages = 0
    while some := rows.fetchmany(500):
        for doc_id, indices, blocks, whole in some:
            batch.append(_Chosen(doc_id, tuple(indices), None if whole else blocks))
            pages += len(indices)
            if pages >= _BATCH_PAGES or len(batch) >= _BATCH_DOCUMENTS:
                yield batch
                batch, pages = [], 0
    if batch:
        yield batch


def _unopened(output: Output) -> Iterator[Candidate]:
    rows = output.con.cursor().execute(
        """SELECT s.uri, s.size, s.etag, s.mtime_ns, s.ctime_ns, s.inode, c.doc_id
           FROM (SELECT uri, any_value(doc_id) AS doc_id FROM chosen WHERE page_index IS NULL GROUP BY uri) c
           JOIN source_latest s ON s.uri = c.uri ORDER BY s.uri"""
    )
    names = ("uri", "size", "etag", "mtime_ns", "ctime_ns", "inode", "doc_id")
    while some := rows.fetchmany(500):
        for row in some:
            yield _candidate(dict(zip(names, row, strict=True)))
