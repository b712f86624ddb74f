"""Change detection: what of a listing is new, changed, unfinished or due for another try.

Invariant: decided by uri and identity against the ledger alone, a batch at a time and vectorised; no byte of a document
is read. An object that is unchanged and whose document is done costs nothing but its row in the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.schema import Probe
from pipelines.store.state import LedgerState


class Verdict(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    BACK = "back"  # had vanished
    RETRY = "retry"  # could not be fetched or opened, transiently
    OPEN = "open"  # its document has an unfinished revision
    RETRY_PAGES = "retry_pages"  # its document is complete, but pages failed transiently
    PARTIAL = "partial"  # of its document only some pages were asked for so far
    DONE = "done"


@dataclass(slots=True, frozen=True)
class Candidate:
    """A listed object that is not done, with what the ledger knew of it."""

    verdict: Verdict
    uri: str
    size: int | None
    etag: str | None
    mtime_ns: int | None
    ctime_ns: int | None
    inode: int | None
    doc_id: str | None = None  # the last one that this URI had
    format: str | None = None
    page_count: int | None = None
    flags: tuple[str, ...] = ()
    tries: int = 0
    # what a manifest says of it
    pages: str = ""
    options: str = ""
    secret: int = 0

    def identity(self) -> dict[str, object]:
        """The columns of a source record that say which object this was."""
        return {
            "uri": self.uri, "size": self.size, "etag": self.etag,
            "mtime_ns": self.mtime_ns, "ctime_ns": self.ctime_ns, "inode": self.inode,
        }  # fmt: skip


@dataclass(slots=True, frozen=True)
class Stranded:
    """A document with an unfinished revision that no URI holds any more."""

    doc_id: str
    revision: int
    uri: str  # one that held it
    page_count: int
    format: str
    replaced: bool  # another document took its place; False: the object is gone


_SETUP = """
CREATE TABLE known AS SELECT * EXCLUDE (history, "at", run_id, number) FROM source_latest;
CREATE TABLE doc_state AS
SELECT r.doc_id, r.newest, r.open_revision, coalesce(l.retryable, 0) AS retryable, l.state, l.page_count, l.tries, r.options,
       coalesce(l.ok + l.blank + l.degraded + l.failed < l.page_count, false) AS partial
FROM (SELECT r.doc_id, max(r.revision) AS newest, max(r.revision) FILTER (d.doc_id IS NULL) AS open_revision,
             arg_max(r.options, r.revision) AS options
      FROM (SELECT doc_id, revision, options FROM ledger WHERE kind = 'revision') r
      LEFT JOIN (SELECT DISTINCT doc_id, revision FROM ledger WHERE kind = 'document') d
             ON d.doc_id = r.doc_id AND d.revision = r.revision
      GROUP BY r.doc_id) r
LEFT JOIN document_latest l ON l.doc_id = r.doc_id;
CREATE TABLE listed (uri VARCHAR);
CREATE TABLE replaced (uri VARCHAR);
"""

_CLASSIFY = """
SELECT b.uri, b.size, b.etag, b.mtime_ns, b.ctime_ns, b.inode, b.pages, b.options, b.secret,
       k.doc_id, k.format, k.page_count, k.flags, coalesce(k.tries, d.tries, 0) AS tries,
  CASE
    WHEN k.uri IS NULL THEN 'new'
    WHEN (k.size, k.etag, k.mtime_ns, k.ctime_ns, k.inode) IS DISTINCT FROM
         (b.size, b.etag, b.mtime_ns, b.ctime_ns, b.inode) THEN 'changed'
    WHEN k.presence = 'vanished' THEN 'back'
    WHEN k.error_code = 'PAGES_OUT_OF_RANGE' THEN 'retry'
    WHEN k.error_code IS NOT NULL THEN CASE WHEN k.retryable > 0 THEN 'retry' ELSE 'done' END
    WHEN d.open_revision IS NOT NULL THEN 'open'
    WHEN d.retryable > 0 AND k.page_count IS NULL THEN 'retry'
    WHEN d.retryable > 0 THEN 'retry_pages'
    WHEN d.doc_id IS NULL THEN 'retry'
    WHEN d.partial THEN 'partial'
    ELSE 'done' END AS verdict
FROM batch b LEFT JOIN known k ON k.uri = b.uri LEFT JOIN doc_state d ON d.doc_id = k.doc_id
"""

# open revisions of documents that no URI holds any more: each one that did has vanished or holds other bytes
_STRANDED = """
SELECT d.doc_id, d.open_revision, max(k.uri) AS uri, max(k.page_count) AS page_count, max(k.format) AS format,
       bool_or(x.uri IS NOT NULL) AS replaced
FROM doc_state d JOIN known k ON k.doc_id = d.doc_id
LEFT JOIN replaced x ON x.uri = k.uri
LEFT JOIN listed l ON l.uri = k.uri
WHERE d.open_revision IS NOT NULL
GROUP BY d.doc_id, d.open_revision
HAVING bool_and(k.presence = 'vanished' OR x.uri IS NOT NULL
                OR ($below IS NOT NULL AND starts_with(k.uri, $below) AND l.uri IS NULL))
ORDER BY d.doc_id
"""


# the first quarter of each document's id that the ledger knows, as a number
_QUARTERS = """
SELECT DISTINCT TRY_CAST('0x' || doc_id[1:16] AS UBIGINT) AS quarter
FROM (SELECT doc_id FROM doc_state UNION ALL SELECT doc_id FROM known) WHERE quarter IS NOT NULL
"""


class ChangeDetector:
    """Compares batches of a listing with a ledger snapshot, and remembers what was listed for `vanished`."""

    def __init__(self, state: LedgerState) -> None:
        self._con = state.con
        self._con.execute(_SETUP)
        quarters = self._con.sql(_QUARTERS).to_arrow_table().column("quarter")
        # most documents that are asked for are new: 3 us tell that, a query 0.6 ms
        self._quarters: npt.NDArray[np.uint64] = np.sort(quarters.to_numpy())
        self.counts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
        self.listed_bytes = 0

    def compare(self, batch: pa.Table) -> Iterator[Candidate]:
        """Those objects of a batch that are not done, in the listing's order.

        Args:
            batch: of schema `listing.BATCH`.
        """
        self.count(batch)
        rows = self._con.sql("SELECT * FROM judged WHERE verdict <> 'done'").to_arrow_table()
        for row in rows.to_pylist():
            row["flags"] = tuple(row["flags"] or ())
            yield Candidate(verdict=Verdict(row.pop("verdict")), **row)

    def count(self, batch: pa.Table) -> None:
        """Judges a batch, as `compare` does, for `counts` alone."""
        self._con.register("batch", batch)
        self._con.execute("INSERT INTO listed SELECT uri FROM batch")
        found = self._con.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {_CLASSIFY}; SELECT verdict, count(*), "
                                  "sum(size)::BIGINT FROM judged GROUP BY verdict").fetchall()  # fmt: skip
        self._con.execute("INSERT INTO replaced SELECT uri FROM judged WHERE verdict = 'changed' AND doc_id IS NOT NULL")
        self._con.unregister("batch")
        for verdict, count, size in found:
            self.counts[Verdict(verdict)] += count
            self.listed_bytes += size or 0

    @property
    def undone(self) -> int:
        """Objects judged so far that are not done."""
        return sum(count for verdict, count in self.counts.items() if verdict is not Verdict.DONE)

    def vanished(self, below: str) -> Iterator[dict[str, object]]:
        """Known objects below a prefix that a complete listing did not name, as columns of a source record."""
        return self._known("ANTI JOIN listed l ON l.uri = k.uri WHERE k.presence = 'present' AND starts_with(k.uri, ?)", below)

    def known(self, uris: Sequence[str]) -> Iterator[dict[str, object]]:
        """Those of these objects that were there, as columns of a source record."""
        return self._known("WHERE k.presence = 'present' AND list_contains(?, k.uri)", list(uris))

    def _known(self, where: str, value: object) -> Iterator[dict[str, object]]:
        cursor = self._con.cursor().execute(
            f"SELECT k.* EXCLUDE (presence, error_code, error_message) FROM known k {where}", [value]
        )  # fmt: skip
        while batch := cursor.fetchmany(1000):
            names = [column[0] for column in cursor.description or ()]
            for values in batch:
                yield dict(zip(names, values, strict=True))

    def stranded(self, below: str | None) -> list[Stranded]:
        """Documents with an unfinished revision whose bytes are gone.

        Args:
            below: the prefix of which the listing was complete, if any.
        """
        return [Stranded(*row) for row in self._con.execute(_STRANDED, {"below": below}).fetchall()]

    def document(self, doc_id: str) -> tuple[int, int | None, int, int | None, str, bool] | None:
        """(newest revision, open revision, retryable, page count, options of the newest, whether only some of its pages were
        asked for so far) of a document that the ledger knows."""
        if not self._may_know(doc_id):
            return None
        found = "SELECT newest, open_revision, retryable, page_count, options, partial FROM doc_state WHERE doc_id = ?"
        # to the last row: a result that is not finished blocks the connection (DuckDB 2)
        rows = self._con.execute(found, [doc_id]).fetchall()
        return None if not rows else (rows[0][0], rows[0][1], rows[0][2], rows[0][3], rows[0][4] or "", rows[0][5])

    def opened(self, doc_id: str) -> Probe | None:
        """What opening a document told when another URI brought it, or None."""
        if not self._may_know(doc_id):
            return None
        row = (
            self._con.cursor()
            .execute(  # a connection of its own: probing threads ask at any time
                "SELECT format, page_count, flags FROM known WHERE doc_id = ? AND page_count IS NOT NULL LIMIT 1",
                [doc_id],
            )
            .fetchone()
        )
        return None if row is None else Probe(row[0], row[1], None, tuple(row[2] or ()))

    def _may_know(self, doc_id: str) -> bool:
        """False: the ledger has no such document."""
        quarter = np.uint64(int(doc_id[:16], 16))
        found = int(np.searchsorted(self._quarters, quarter))
        return found < len(self._quarters) and bool(self._quarters[found] == quarter)
