"""The audit: the completeness equation and every part's integrity, re-derived from OUTPUT alone.

Invariant: nothing that a run said of itself is believed: counts come from live span records, live rows are looked up in
their parts, and every stored object is hashed against its name. Memory is bounded: parts are read one at a time.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lanes import number_of
from pipelines.store.parts import document_folder, images_of
from pipelines.store.reading import Output

_MOST_PROBLEMS = 1000
# parts that any lane names, where they lie now
_NAMED = """SELECT DISTINCT coalesce(m.new_part, s.part) FROM lane_record s LEFT JOIN part_moved m ON m.old_part = s.part
            WHERE s.kind = 'span'"""


@dataclass(slots=True)
class AuditResult:
    """`ok`: the equation holds on both levels, nothing is pending and every live part is intact, whatever failed."""

    sources: int = 0
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
    problems: list[str] = field(default_factory=list)

    @property
    def pending_work(self) -> bool:
        return self.pending > 0 or bool(self.idle_lanes)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.pending_work

    def problem(self, words: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(words)


def audit(uri: str, listing: Iterable[str] | None = None, storage_options: Mapping[str, Any] | None = None) -> AuditResult:
    """
    Args:
        listing: URIs of a complete listing of the source; each must have a source record.

    Raises:
        ConfigError: not an output.
    """
    result = AuditResult()
    with Output(uri, storage_options, parts=False) as output:
        _lanes(output, result)
        _sources(output, listing, result)
        _equation(output, result)
        _parts(output, result)
        _markdown(output, result)
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


def _sources(output: Output, listing: Iterable[str] | None, result: AuditResult) -> None:
    con = output.con
    result.sources = _one(con, "SELECT count(*) FROM source_latest")
    for (uri,) in con.execute("SELECT uri FROM source_latest WHERE doc_id IS NULL AND error_code IS NULL").fetchall():
        result.problem(f"source {uri}: neither a document nor an error")
    unknown = """SELECT s.uri FROM source_latest s LEFT JOIN revision_opened r ON r.doc_id = s.doc_id
                 WHERE s.doc_id IS NOT NULL AND r.doc_id IS NULL AND s.error_code IS NULL"""
    for (uri,) in con.execute(unknown).fetchall():
        result.problem(f"source {uri}: its document was never planned")
    if listing is None:
        return
    con.execute("CREATE OR REPLACE TEMP TABLE listed (uri VARCHAR)")
    batch: list[str] = []
    for uri in listing:
        batch.append(uri)
        if len(batch) == 10_000:
            _insert(con, batch)
            batch = []
    _insert(con, batch)
    missing = "SELECT uri FROM listed l ANTI JOIN source_latest s ON s.uri = l.uri ORDER BY uri"
    for (uri,) in con.execute(missing).fetchall():
        result.problem(f"{uri}: listed, but has no source record")


def _insert(con: Any, uris: list[str]) -> None:
    if uris:
        rows = pa.table({"uri": uris})
        con.register("listed_batch", rows)
        con.execute("INSERT INTO listed SELECT uri FROM listed_batch")
        con.unregister("listed_batch")


def _equation(output: Output, result: AuditResult) -> None:
    """For every opened document: pages = ok + blank + degraded + failed + pending, counted from live span records. Pages that a
    manifest left out are in no revision and do not count."""
    con = output.con
    result.documents = _one(con, "SELECT count(DISTINCT doc_id) FROM revision_opened")
    result.states = dict(con.execute("SELECT state, count(*) FROM live_page GROUP BY state ORDER BY state").fetchall())
    rows = con.execute("""
        WITH counted AS (SELECT doc_id, count(*) AS live, count(*) FILTER (state = 'ok') AS ok,
                   count(*) FILTER (state = 'blank') AS blank, count(*) FILTER (state = 'degraded') AS degraded,
                   count(*) FILTER (state = 'failed') AS failed,
                   count(*) FILTER (state NOT IN ('ok', 'blank', 'degraded', 'failed')) AS strange,
                   min(page_index) AS lowest, max(page_index) AS highest FROM live_page GROUP BY doc_id),
             opened AS (SELECT doc_id, max(page_count) AS page_count FROM (
                   SELECT doc_id, page_count FROM ledger WHERE kind IN ('source', 'document') AND page_count IS NOT NULL)
                   GROUP BY doc_id),
             open_revisions AS (SELECT r.doc_id, sum(len(r.pages))::BIGINT AS planned FROM revision_opened r
                   ANTI JOIN document_all d ON d.doc_id = r.doc_id AND d.revision = r.revision GROUP BY r.doc_id)
        SELECT r.doc_id, o.page_count, coalesce(c.live, 0), c.strange, c.lowest, c.highest,
               d.ok, d.blank, d.degraded, d.failed, c.ok, c.blank, c.degraded, c.failed, d.doc_id IS NOT NULL, v.planned
        FROM (SELECT DISTINCT doc_id FROM revision_opened) r LEFT JOIN opened o ON o.doc_id = r.doc_id
        LEFT JOIN counted c ON c.doc_id = r.doc_id LEFT JOIN document_latest d ON d.doc_id = r.doc_id
        LEFT JOIN open_revisions v ON v.doc_id = r.doc_id ORDER BY r.doc_id""").fetchall()
    for doc, page_count, live, strange, lowest, highest, *counts, complete, planned in rows:
        if page_count is None:
            result.unopened += 1
            continue
        asked = page_count if live >= page_count else _asked_pages(output, doc)
        result.pages += asked
        result.left_out += page_count - asked
        if planned is not None:
            missing = asked - live if not complete else _open_pages(output, doc)
            result.pending += missing
            if missing == 0:
                result.problem(f"document {doc}: all pages are read, but it was not finalized: run again")
            continue
        if live != asked or strange or (live == page_count and live and (lowest != 0 or highest != page_count - 1)):
            result.problem(f"document {doc}: {asked} pages, but {live} live ones from {lowest} to {highest}")
        if complete and counts[:4] != counts[4:] and page_count:
            result.problem(f"document {doc}: its record counts {counts[:4]}, its pages are {counts[4:]}")


def _asked_pages(output: Output, doc_id: str) -> int:
    """Pages that some revision asks for: a manifest may leave the others out."""
    asked = "SELECT count(DISTINCT page) FROM (SELECT unnest(pages) AS page FROM revision_opened WHERE doc_id = ?)"
    return int(output.con.execute(asked, [doc_id]).fetchall()[0][0])


def _open_pages(output: Output, doc_id: str) -> int:
    """Pages of a later revision that is under way and not read yet."""
    rows = output.con.execute(
        """SELECT sum(len(r.pages))::BIGINT - (SELECT count(*) FROM revision_page p
               ANTI JOIN document_all d ON d.doc_id = p.doc_id AND d.revision = p.revision WHERE p.doc_id = $1)
           FROM revision_opened r ANTI JOIN document_all d ON d.doc_id = r.doc_id AND d.revision = r.revision
           WHERE r.doc_id = $1""",
        [doc_id],
    ).fetchall()
    return int(rows[0][0] or 0) if rows else 0


def _parts(output: Output, result: AuditResult) -> None:
    """Every live row is in its part, with that attempt and state; every live part hashes to its name."""
    con = output.con
    con.execute("CREATE OR REPLACE TABLE live_row AS SELECT part, doc_id, page_index, attempt, state FROM live_page")
    named = [str(row[0]) for row in con.execute("SELECT DISTINCT part FROM live_row").fetchall()]
    known = {str(row[0]) for row in con.execute(_NAMED).fetchall()} | set(named)
    result.parts = len(named)
    result.orphans = sum(1 for key in output.store.list("pages") if key not in known)
    rows = con.cursor().execute("SELECT part, doc_id, page_index, attempt, state FROM live_row ORDER BY part")
    for part, expected in groupby(_each(rows), key=lambda row: str(row[0])):
        _part(output, part, [row[1:] for row in expected], result)


def _each(rows: Any) -> Iterator[tuple[Any, ...]]:
    while batch := rows.fetchmany(10_000):
        yield from batch


def _part(output: Output, part: str, expected: list[tuple[Any, ...]], result: AuditResult) -> None:
    try:
        data = output.store.get(part)
    except FileNotFoundError:
        result.problem(f"{part}: missing")
        return
    if hashlib.sha256(data).hexdigest() not in part:
        result.problem(f"{part}: its bytes do not hash to its name")
        return
    table = pq.read_table(io.BytesIO(data), columns=["doc_id", "page_index", "attempt", "state", "blocks"]).to_pylist()
    rows = {(row["doc_id"], row["page_index"], row["attempt"], row["state"]): row["blocks"] or [] for row in table}
    for wanted in expected:
        if wanted not in rows:
            result.problem(f"{part}: page {wanted[1]} of {wanted[0]} is not in it as the ledger says")
        for image in set().union(*(images_of(block) for block in rows.get(wanted, ()))):
            if not output.store.exists(f"{document_folder(wanted[0])}/{image}"):
                result.problem(f"image {image} of document {wanted[0]}: missing")


def _markdown(output: Output, result: AuditResult) -> None:
    keys = output.con.execute("SELECT markdown FROM document_latest WHERE markdown IS NOT NULL ORDER BY 1")
    for (key,) in keys.fetchall():
        try:
            data = output.store.get(key)
        except FileNotFoundError:
            result.problem(f"{key}: missing")
            continue
        if hashlib.sha256(data).hexdigest() not in key:
            result.problem(f"{key}: its bytes do not hash to its name")


def _one(con: Any, sql: str) -> int:
    return int(con.execute(sql).fetchall()[0][0])
