"""Garbage collection: what no ledger record names any more, and is old by the store's own clock.

Invariant: it deletes only under a claim of its own, so never while a driver lives, and checks before every deletion that
the object is still as old as it was: a driver that came meanwhile puts an object anew before it names it. A part that a
record names is first declared gone in the ledger, then deleted, so no reader looks for it.
"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store.filesystem import TEMPORARY
from pipelines.store.inventory import Inventory, Stored, load
from pipelines.store.ledger import Ledger
from pipelines.store.live import ask_repeated, find_repeated
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder, images_of
from pipelines.store.records import record
from pipelines.store.state import LedgerState

_BATCH = 100  # deletions between two looks at who has the lane
_MOST = 1_000_000  # objects of one pass, so that what is remembered of them stays below 1 GiB; the next pass takes the rest

# parts with rows that one of the newest revisions of a document shows, or that an unfinished one will. Of documents that were
# read once that is every part; of those of which a page was read again it is found page by page, some documents at a time
_NEEDED_WHOLE = """
CREATE OR REPLACE TABLE needed AS
SELECT DISTINCT coalesce(m.new_part, s.part) AS part FROM ledger s LEFT JOIN part_moved m ON m.old_part = s.part
ANTI JOIN repeated_document r ON r.doc_id = s.doc_id WHERE s.kind = 'span';

CREATE OR REPLACE TABLE needed_markdown AS
SELECT markdown AS key FROM document_all WHERE markdown IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY doc_id ORDER BY revision DESC) <= {keep};
"""

_NEEDED_BY_PAGE = """
INSERT INTO needed
WITH complete AS (SELECT d.doc_id, d.revision, row_number() OVER (PARTITION BY d.doc_id ORDER BY d.revision DESC) AS age
                  FROM document_all d SEMI JOIN asked a ON a.doc_id = d.doc_id),
     kept AS (SELECT doc_id, min(revision) AS since FROM complete WHERE age <= {keep} GROUP BY doc_id),
     rows_of AS (SELECT s.doc_id, s.page_index, s.revision, s.part, s.position, k.since, c.doc_id IS NOT NULL AS complete
                 FROM span_page_asked s LEFT JOIN kept k ON k.doc_id = s.doc_id
                 LEFT JOIN complete c ON c.doc_id = s.doc_id AND c.revision = s.revision)
SELECT DISTINCT part FROM rows_of WHERE since IS NULL OR NOT complete OR revision > since
UNION
SELECT part FROM rows_of WHERE complete AND revision <= since
QUALIFY row_number() OVER (PARTITION BY doc_id, page_index ORDER BY position DESC) = 1;
"""

_NAMED = """
SELECT DISTINCT coalesce(m.new_part, s.part), {lane} FROM ledger s LEFT JOIN part_moved m ON m.old_part = s.part
WHERE s.kind = 'span'
"""

# what each lane needs and names, together: a document of several lanes keeps its parts in each
_TABLES = """
CREATE TABLE needed (part VARCHAR);
CREATE TABLE needed_markdown (key VARCHAR);
CREATE TABLE needed_image (key VARCHAR);
CREATE TABLE named_part (part VARCHAR, lane INTEGER);
CREATE TABLE moved_part (old_part VARCHAR, new_part VARCHAR);
"""

_SHOWN = ["blocks.list.element.image", "blocks.list.element.html"]  # where a row names image files

_GARBAGE = """
SELECT f.key, f.size, f.modified,
       CASE WHEN f.temporary THEN 'unfinished file'
            WHEN starts_with(f.key, 'pages/') THEN CASE WHEN n.part IS NOT NULL THEN 'superseded part'
                 WHEN m.old_part IS NOT NULL THEN 'compacted part' ELSE 'orphan part' END
            WHEN ends_with(f.key, '.md') THEN 'markdown'
            WHEN starts_with(f.key, 'runs/') THEN 'plan of an ended run' ELSE 'image' END AS kind,
       CASE WHEN NOT f.temporary THEN n.lane END AS lane
FROM (SELECT *, contains(key, '{temporary}') AS temporary FROM found) f
ANTI JOIN needed p ON p.part = f.key
ANTI JOIN needed_markdown d ON d.key = f.key
ANTI JOIN needed_image i ON i.key = f.key
LEFT JOIN (SELECT part, min(lane) AS lane FROM named_part GROUP BY part) n ON n.part = f.key
LEFT JOIN (SELECT old_part, min(new_part) AS new_part FROM moved_part GROUP BY old_part) m ON m.old_part = f.key
LEFT JOIN found t ON t.key = m.new_part
WHERE f.modified < {before} AND (m.old_part IS NULL OR t.modified < {before}) LIMIT {most}
"""


@dataclass(slots=True, frozen=True)
class Garbage:
    kind: str
    key: str
    size: int
    modified: float  # by the store's clock, seconds since the epoch
    lane: int | None = None  # of a superseded part: the one whose ledger names it


@dataclass(slots=True)
class Collected:
    count: Counter[str] = field(default_factory=Counter)  # by kind
    size: Counter[str] = field(default_factory=Counter)
    touched: int = 0  # became young again before they could be deleted


class Collector:
    """
    Args:
        ledgers: of all lanes of the output.
        older_than_s: an object younger than this is left, whatever names it.
        keep_revisions: newest complete revisions of a document that stay readable, and as many of those that are published; None:
            all.
    """

    def __init__(self, store: ObjectStore, ledgers: Sequence[Ledger], older_than_s: float, keep_revisions: int | None) -> None:
        self._store = store
        self._inventory = Inventory(store)
        self._ledgers = ledgers
        self._older_than_s = older_than_s
        self._keep = keep_revisions

    def find(self) -> list[Garbage]:
        """What could be deleted now; deletes nothing."""
        before = self._inventory.now() - self._older_than_s
        with tempfile.TemporaryDirectory(prefix="pagemill-gc-") as scratch:
            state = LedgerState((), Path(scratch))
            try:
                state.con.execute(_TABLES)
                for ledger in self._ledgers:
                    self._name_parts(state, ledger, Path(scratch))
                load(state.con, self._objects())
                self._name_images(state)
                rows = state.rows(_GARBAGE.format(before=before, temporary=TEMPORARY, most=_MOST))
            finally:
                state.close()
        found = [Garbage(str(kind), str(key), int(str(size)), float(str(at)), lane) for key, size, at, kind, lane in rows]  # type: ignore[arg-type]
        found += [
            Garbage("unfinished upload", up.key, up.size, up.modified) for up in self._inventory.uploads() if up.modified < before
        ]
        return found

    def collect(self, garbage: Sequence[Garbage]) -> Collected:
        """Deletes what `find` found under the ledger's claim.

        Raises:
            Fenced: another driver took the lane; what was deleted until then was garbage.
        """
        done = Collected()
        before = self._inventory.now() - self._older_than_s
        for first in range(0, len(garbage), _BATCH):
            batch = garbage[first : first + _BATCH]
            for ledger in self._ledgers:
                ledger.check_claim()
                named = [entry.key for entry in batch if entry.lane == ledger.lane.number]
                if named:
                    ledger.append([record("moved", old_part=key, new_part=None) for key in named])
            for entry in batch:
                self._delete(entry, before, done)
        return done

    def _delete(self, entry: Garbage, before: float, done: Collected) -> None:
        if entry.kind == "unfinished upload":
            self._inventory.abort_upload(entry.key)
        else:
            modified = self._inventory.modified(entry.key)
            if modified is None:
                return
            if modified >= before:
                done.touched += 1
                return
            self._store.delete(entry.key)
        done.count[entry.kind] += 1
        done.size[entry.kind] += entry.size

    def _objects(self) -> Iterator[Stored]:
        yield from self._inventory.below("pages")
        yield from self._inventory.below("markdown")
        yield from (stored for stored in self._inventory.below("runs") if "/plan/" in stored.key)

    def _name_parts(self, state: LedgerState, ledger: Ledger, scratch: Path) -> None:
        """What one lane needs and names, into the tables of `_TABLES`."""
        keep = self._keep or 9223372036854775807
        kept = [("needed", "SELECT part FROM needed"), ("needed_markdown", "SELECT key FROM needed_markdown")]
        named = [
            ("named_part", _NAMED.format(lane=ledger.lane.number)),
            ("moved_part", "SELECT old_part, new_part FROM part_moved"),
        ]
        self._copy(state, LedgerState(ledger.paths, scratch), kept + named, keep)
        if self._keep is not None:  # a newer reading that is held back makes none of those that are published superfluous
            self._copy(state, LedgerState(ledger.paths, scratch, published=True), kept, keep)

    def _copy(self, state: LedgerState, lane: LedgerState, tables: Sequence[tuple[str, str]], keep: int) -> None:
        try:
            find_repeated(lane.con)
            lane.con.execute(_NEEDED_WHOLE.format(keep=keep))
            for _ in ask_repeated(lane.con):
                lane.con.execute(_NEEDED_BY_PAGE.format(keep=keep))
            for table, rows in tables:
                state.con.register("of_lane", lane.con.sql(rows).to_arrow_reader(100_000))
                state.con.execute(f"INSERT INTO {table} SELECT * FROM of_lane")
                state.con.unregister("of_lane")
        finally:
            lane.close()

    def _name_images(self, state: LedgerState) -> None:
        """Images of all rows of the parts that stay; nothing is read when no image is stored."""
        images = "SELECT count(*) FROM found WHERE starts_with(key, 'markdown/') AND NOT ends_with(key, '.md')"
        if state.rows(images) == [(0,)]:
            return
        for (part,) in state.rows("SELECT DISTINCT part FROM needed n SEMI JOIN found f ON f.key = n.part"):
            data = io.BytesIO(self._store.get(str(part)))
            rows = pq.ParquetFile(data).read(columns=["doc_id", *_SHOWN]).to_pylist()
            keys = sorted({
                f"{document_folder(row['doc_id'])}/{image}"
                for row in rows for block in row["blocks"] or () for image in images_of(block)
            })  # fmt: skip
            if keys:
                state.con.register("some_images", pa.table({"key": keys}))
                state.con.execute("INSERT INTO needed_image SELECT key FROM some_images")
                state.con.unregister("some_images")
