"""The audit: the completeness equation and every part's integrity, re-derived from OUTPUT alone.

Invariant: nothing that a run said of itself is believed: counts come from live span records, live rows are looked up in
their parts, and every stored object is hashed against its name. Memory is bounded: the state is a DuckDB file, documents come
from it some thousand at a time, parts are read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.lanes import number_of
from pipelines.store.audit_ledger import audit_ledgers
from pipelines.store.audit_parts import PartAudit
from pipelines.store.gaps import find_gaps
from pipelines.store.live import install_live_spans, numbered_rows
from pipelines.store.reading import Output

_MOST_PROBLEMS = 1000

# of each opened document: its pages as its newest record of any kind has them, what is live, what its document record counts, and
# the pages that its unfinished revisions ask for
_ACCOUNT = """
CREATE OR REPLACE TABLE account AS
WITH page AS (SELECT doc_id, unnest(pages) AS page_index, unnest(states) AS state FROM live_span),
     counted AS (SELECT doc_id, count(*) AS live, count(*) FILTER (state = 'ok') AS ok,
               count(*) FILTER (state = 'blank') AS blank, count(*) FILTER (state = 'degraded') AS degraded,
               count(*) FILTER (state = 'failed') AS failed, min(page_index) AS lowest, max(page_index) AS highest
               FROM page GROUP BY doc_id),
     opened AS (SELECT doc_id, max(page_count) AS page_count FROM ledger WHERE kind IN ('source', 'document') GROUP BY doc_id),
     revision AS (SELECT doc_id, revision, any_value(len(pages)) AS pages FROM ledger WHERE kind = 'revision' GROUP BY ALL),
     unfinished AS (SELECT r.doc_id, sum(r.pages)::BIGINT AS planned FROM revision r
               ANTI JOIN document_all d ON d.doc_id = r.doc_id AND d.revision = r.revision GROUP BY r.doc_id)
SELECT r.doc_id, o.page_count, coalesce(c.live, 0) AS live, c.lowest, c.highest, d.doc_id IS NOT NULL AS complete,
       [c.ok, c.blank, c.degraded, c.failed] AS states, [d.ok, d.blank, d.degraded, d.failed] AS said, v.planned
FROM (SELECT DISTINCT doc_id FROM revision) r LEFT JOIN opened o ON o.doc_id = r.doc_id
LEFT JOIN counted c ON c.doc_id = r.doc_id LEFT JOIN document_latest d ON d.doc_id = r.doc_id
LEFT JOIN unfinished v ON v.doc_id = r.doc_id;
"""

# of a document read once and whole nothing is left to look at
_WHOLE = """live = page_count AND planned IS NULL AND lowest = 0 AND highest = page_count - 1 AND list_sum(states) = live
            AND states = said"""

# the others, with the pages that any revision asks for (a manifest may leave some out), and those that unfinished ones have read
_OTHERS = f"""
CREATE OR REPLACE TABLE other AS SELECT * FROM account WHERE NOT coalesce({_WHOLE}, false);
DELETE FROM asked;
INSERT INTO asked SELECT doc_id FROM other;
CREATE OR REPLACE TABLE other_account AS
WITH wanted AS (SELECT doc_id, count(DISTINCT page_index) AS pages FROM (
         SELECT l.doc_id, unnest(l.pages) AS page_index FROM ledger l SEMI JOIN asked a ON a.doc_id = l.doc_id
         WHERE l.kind = 'revision') GROUP BY doc_id),
     covered AS (SELECT p.doc_id, count(DISTINCT p.revision::BIGINT << 32 | p.page_index) AS pages FROM span_page_asked p
         ANTI JOIN document_all d ON d.doc_id = p.doc_id AND d.revision = p.revision GROUP BY p.doc_id)
SELECT o.*, coalesce(w.pages, 0) AS wanted, coalesce(c.pages, 0) AS covered, row_number() OVER (ORDER BY o.doc_id) AS no
FROM other o LEFT JOIN wanted w ON w.doc_id = o.doc_id LEFT JOIN covered c ON c.doc_id = o.doc_id;
"""


@dataclass(slots=True)
class AuditResult:
    """`ok`: the equation holds on both levels, nothing is pending and every live part is intact, whatever failed."""

    sources: int = 0
    unfetched: int = 0  # sources that are there and ended with an error of their own: no document is known
    documents: int = 0
    unopened: int = 0  # documents that could not be opened: failed or encrypted
    pages: int = 0  # of opened documents, as far as somebody asked for them
    left_out: int = 0  # pages that a manifest's rows leave out
    states: dict[str, int] = field(default_factory=dict)  # of live pages
    pending: int = 0
    parts: int = 0
    orphans: int = 0  # parts that no record names: no error
    lanes: int = 1
    idle_lanes: list[int] = field(default_factory=list)  # in which no job ever ran: nobody looked at their sources
    problems: list[str] = field(default_factory=list)  # what no run mends
    undone: list[str] = field(default_factory=list)  # what the next run does: an object that no run has seen, a document's end
    history: list[str] = field(default_factory=list)  # what superseded readings lack: no live page, no error

    @property
    def pending_work(self) -> bool:
        return self.pending > 0 or bool(self.idle_lanes) or bool(self.undone)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.pending_work

    def problem(self, words: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(words)

    def remark(self, words: str) -> None:
        if len(self.history) < _MOST_PROBLEMS:
            self.history.append(words)

    def not_done(self, words: str) -> None:
        if len(self.undone) < _MOST_PROBLEMS:
            self.undone.append(words)


def audit(uri: str, listing: Iterable[str] | None = None, storage_options: Mapping[str, Any] | None = None) -> AuditResult:
    """
    Args:
        listing: URIs of a complete listing of the source; each must have a source record.

    Raises:
        ConfigError: not an output.
    """
    result = AuditResult()
    with Output(uri, storage_options, parts=False) as output:
        output.con.execute("SET preserve_insertion_order = false")  # DuckDB would hold what waits for its place
        audit_ledgers(output.store, output.ledgers, result.problem)
        if not any(ledger.files for ledger in output.ledgers):
            for words in find_gaps(output.store, output.ledgers):
                result.problem(words)
        try:
            _lanes(output, result)
            _sources(output.con, listing, result)
            install_live_spans(output.con)
            _equation(output.con, result)
            stored = PartAudit(output.store, output.con, result.problem, _MOST_PROBLEMS, result.remark)
            result.parts, result.orphans = stored.parts()
            stored.images()
            stored.markdown()
        except duckdb.Error as error:
            if not result.problems:
                raise
            result.problem(f"the ledger cannot be read further: {error}")
    return result


def _lanes(output: Output, result: AuditResult) -> None:
    """Each lane has been run, and holds its own sources alone."""
    result.lanes = len(output.ledgers)
    if result.lanes == 1:
        return
    result.idle_lanes = [ledger.lane.number for ledger in output.ledgers if not ledger.files]
    rows = output.con.cursor().execute("SELECT DISTINCT uri, lane FROM lane_record WHERE kind = 'source'")
    for uri, lane in _each(rows):
        if number_of(uri, result.lanes) != lane:
            result.problem(
                f"source {uri}: recorded in lane {lane}, but lane {number_of(uri, result.lanes)} is the one that reads it"
            )


def _sources(con: duckdb.DuckDBPyConnection, listing: Iterable[str] | None, result: AuditResult) -> None:
    result.sources = _one(con, "SELECT count(*) FROM source_latest")
    # what vanished is accounted for by that; its record holds no error, and no document if none was ever had
    there = "FROM source_latest WHERE presence = 'present' AND doc_id IS NULL"
    result.unfetched = _one(con, f"SELECT count(*) {there} AND error_code IS NOT NULL")
    neither = f"SELECT uri {there} AND error_code IS NULL LIMIT ?"
    for (uri,) in con.execute(neither, [_MOST_PROBLEMS]).fetchall():
        result.problem(f"source {uri}: neither a document nor an error")
    unknown = """SELECT s.uri FROM source_latest s ANTI JOIN (SELECT DISTINCT doc_id FROM ledger WHERE kind = 'revision') r
                 ON r.doc_id = s.doc_id WHERE s.doc_id IS NOT NULL AND s.error_code IS NULL AND s.presence = 'present' LIMIT ?"""
    for (uri,) in con.execute(unknown, [_MOST_PROBLEMS]).fetchall():
        result.problem(f"source {uri}: its document was never planned")
    if listing is None:
        return
    con.execute("CREATE OR REPLACE TABLE listed (uri VARCHAR)")
    batch: list[str] = []
    for uri in listing:
        batch.append(uri)
        if len(batch) == 10_000:
            _insert(con, batch)
            batch = []
    _insert(con, batch)
    missing = "SELECT uri FROM listed l ANTI JOIN source_latest s ON s.uri = l.uri ORDER BY uri LIMIT ?"
    for (uri,) in con.execute(missing, [_MOST_PROBLEMS]).fetchall():
        result.not_done(f"{uri}: listed, but has no source record")


def _insert(con: duckdb.DuckDBPyConnection, uris: list[str]) -> None:
    if uris:
        rows = pa.table({"uri": uris})
        con.register("listed_batch", rows)
        con.execute("INSERT INTO listed SELECT uri FROM listed_batch")
        con.unregister("listed_batch")


def _equation(con: duckdb.DuckDBPyConnection, result: AuditResult) -> None:
    """For every opened document: pages = ok + blank + degraded + failed + pending, counted from live span records. Pages that a
    manifest left out are in no revision and do not count."""
    con.execute(_ACCOUNT)
    result.documents = _one(con, "SELECT count(*) FROM account")
    states = "SELECT state, count(*) FROM (SELECT unnest(states) AS state FROM live_span) GROUP BY state ORDER BY state"
    result.states = {str(state): count for state, count in con.execute(states).fetchall()}
    result.pages = _one(con, f"SELECT coalesce(sum(page_count), 0) FROM account WHERE {_WHOLE}")
    con.execute(_OTHERS)
    columns = "doc_id, page_count, live, lowest, highest, complete, states, said, planned, wanted, covered"
    for row in numbered_rows(con, "other_account", columns):
        _account(result, *row)


def _account(
    result: AuditResult, doc: str, page_count: int | None, live: int, lowest: int | None, highest: int | None, complete: bool,
    states: list[int | None], said: list[int | None], planned: int | None, wanted: int, covered: int,
) -> None:  # fmt: skip
    """One document, as `other_account` has it."""
    if page_count is None:
        result.unopened += 1
        if not complete:
            result.problem(f"document {doc}: planned, but neither its number of pages nor what became of it is recorded")
        return
    asked = page_count if live >= page_count else wanted
    result.pages += asked
    result.left_out += page_count - asked
    if planned is not None:
        missing = planned - covered if complete else asked - live
        result.pending += missing
        if missing == 0:
            result.not_done(f"document {doc}: all pages are read, but it was not finalized")
        return
    strange = live - sum(count or 0 for count in states)
    if live != asked or strange or (live == page_count and live and (lowest != 0 or highest != page_count - 1)):
        result.problem(f"document {doc}: {asked} pages, but {live} live ones from {lowest} to {highest}")
    if complete and said != states and page_count:
        result.problem(f"document {doc}: its record counts {said}, its pages are {states}")


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(con.execute(sql).fetchall()[0][0])


def _each(rows: Any) -> Iterator[tuple[Any, ...]]:
    while batch := rows.fetchmany(10_000):
        yield from batch
