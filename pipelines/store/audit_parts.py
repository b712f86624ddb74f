"""The audit of what is stored: every live row is in its part, once, and parts, images and Markdown hash to their names.

Invariant: nothing is held of an object but what identifies its rows; these are compared in DuckDB, some parts at a time, in
the order in which the ledger names them, so that no pass over all pages is sorted. It costs a GET for every part, image and
Markdown that something live names, 16 at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.store.audit_ledger import Problem
from pipelines.store.fetch import fetched
from pipelines.store.filesystem import TEMPORARY
from pipelines.store.inventory import Inventory, load
from pipelines.store.live import numbered_rows
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder, images_of

_BATCH_PAGES = 200_000  # of the parts that are compared together, or one part
_BATCH_PARTS = 10_000
_BATCH_ROWS = 8192  # decoded at once
_COLUMNS = [
    "doc_id", "page_index", "attempt", "state",
    "blocks.list.element.image", "blocks.list.element.html",  # where a row names image files
]  # fmt: skip
_SHOWS_IMAGE = r"\.(png|jpg)"  # of a table's HTML: worth looking at
_IDENTITY = pa.schema([("no", pa.int64()), ("doc_id", pa.string()), ("page_index", pa.int32()), ("attempt", pa.string())])
_STORED = _IDENTITY.append(pa.field("state", pa.string()))
_SHOWN = _IDENTITY.append(pa.field("image", pa.string()))

_LIVE_PARTS = """
CREATE OR REPLACE TABLE live_part AS
SELECT p.*, coalesce(f.size, 0) AS size, row_number() OVER (ORDER BY p.first, p.part) AS no FROM (
  SELECT part, min(position) AS first, max(position) AS last, sum(len(pages))::BIGINT AS pages FROM live_span GROUP BY part) p
LEFT JOIN found f ON f.key = p.part
"""

# parts that any lane names, where they lie now
_NAMED = """
CREATE OR REPLACE TABLE named_part AS
SELECT DISTINCT coalesce(m.new_part, s.part) AS part FROM lane_record s LEFT JOIN part_moved m ON m.old_part = s.part
WHERE s.kind = 'span'
"""

# superseded readings can be asked for (`history`) until gc says in the ledger that they are gone
_HISTORY_MISSING = """
SELECT n.part FROM named_part n ANTI JOIN found f ON f.key = n.part ANTI JOIN live_part l ON l.part = n.part
ANTI JOIN part_gone g ON g.part = n.part ORDER BY 1 LIMIT ?
"""

_EXPECTED = """
CREATE OR REPLACE TEMP TABLE expected AS
SELECT p.no, s.doc_id, unnest(s.pages) AS page_index, s.attempt, unnest(s.states) AS state
FROM live_span s JOIN live_part p ON p.part = s.part
WHERE p.no BETWEEN $1 AND $2 AND NOT list_contains($5, p.no) AND s.position BETWEEN $3 AND $4
"""
_SAME_ROW = "s.no = e.no AND s.doc_id = e.doc_id AND s.page_index = e.page_index AND s.attempt = e.attempt"
# each expected row has one partner, if both are the number of expected rows
_PARTNERS = f"SELECT count(*), count(*) FILTER (s.state = e.state) FROM expected e LEFT JOIN stored s ON {_SAME_ROW}"
_ODD = f"""
SELECT p.part, o.doc_id, o.page_index, o.partners FROM (
  SELECT e.no, e.doc_id, e.page_index, count(s.no) AS partners, count(*) FILTER (s.state = e.state) AS alike
  FROM expected e LEFT JOIN stored s ON {_SAME_ROW} GROUP BY ALL HAVING partners <> 1 OR alike <> 1) o
JOIN live_part p ON p.no = o.no ORDER BY o.no, o.doc_id, o.page_index LIMIT ?
"""


@dataclass(slots=True, frozen=True)
class _Part:
    no: int
    key: str
    size: int
    pages: int
    first: int
    last: int


@dataclass(slots=True)
class _Rows:
    """What identifies the rows of some parts, and the images that they show."""

    stored: list[pa.Table] = field(default_factory=list)
    shown: list[pa.Table] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)  # parts of which nothing is known


class PartAudit:
    """Over a connection with the ledger's views and the table `live_span`."""

    def __init__(
        self, store: ObjectStore, con: duckdb.DuckDBPyConnection, problem: Problem, most_problems: int, remark: Problem
    ) -> None:
        """
        Args:
            remark: told of what concerns superseded readings alone.
        """
        self._store = store
        self._con = con
        self._problem, self._remark = problem, remark
        self._most = most_problems

    def parts(self) -> tuple[int, int]:
        """Live parts, and those that no record names."""
        load(self._con, (part for part in Inventory(self._store).below("pages") if TEMPORARY not in part.key))
        self._con.execute(_LIVE_PARTS + ";" + _NAMED)
        self._con.execute("CREATE OR REPLACE TABLE shown_image (doc_id VARCHAR, image VARCHAR)")
        for (part,) in self._con.execute(_HISTORY_MISSING, [self._most]).fetchall():
            self._remark(f"{part}: missing; it holds superseded readings only")
        for batch in self._batches():
            self._compare(batch)
        live, orphans = "SELECT count(*) FROM live_part", "SELECT count(*) FROM found f ANTI JOIN named_part n ON n.part = f.key"
        return self._one(live), self._one(orphans)

    def images(self) -> None:
        """Every image that a live row shows."""
        self._number("image_to_look_at", "SELECT doc_id, image FROM shown_image GROUP BY 1, 2")
        rows = numbered_rows(self._con, "image_to_look_at", "doc_id, image")
        for (doc_id, image), data in fetched(self._store, rows, lambda row: f"{document_folder(row[0])}/{row[1]}"):
            self._check_hash(image, f"image {image} of document {doc_id}", data)

    def markdown(self) -> None:
        """The Markdown of every document as it now stands."""
        self._number("markdown_to_look_at", "SELECT markdown FROM document_latest WHERE markdown IS NOT NULL")
        rows = numbered_rows(self._con, "markdown_to_look_at", "markdown")
        for (key,), data in fetched(self._store, rows, lambda row: str(row[0])):
            self._check_hash(key, key, data)

    def _number(self, table: str, rows: str) -> None:
        self._con.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT *, row_number() OVER () AS no FROM ({rows})")

    def _check_hash(self, key: str, words: str, data: bytes | None) -> bool:
        if data is None:
            self._problem(f"{words}: missing")
        elif hashlib.sha256(data).hexdigest() not in key.rpartition("/")[2]:
            self._problem(f"{words}: its bytes do not hash to its name")
        else:
            return True
        return False

    def _batches(self) -> Iterator[list[_Part]]:
        batch, pages = list[_Part](), 0
        for row in numbered_rows(self._con, "live_part", "no, part, size, pages, first, last"):
            part = _Part(*row)
            if batch and (pages + part.pages > _BATCH_PAGES or len(batch) == _BATCH_PARTS):
                yield batch
                batch, pages = [], 0
            batch.append(part)
            pages += part.pages
        if batch:
            yield batch

    def _compare(self, batch: list[_Part]) -> None:
        rows = self._read(batch)
        bounds = [batch[0].no, batch[-1].no, min(part.first for part in batch), max(part.last for part in batch)]
        self._con.execute(_EXPECTED, [*bounds, rows.damaged])
        self._con.register("stored", pa.concat_tables([_STORED.empty_table(), *rows.stored]))
        expected = self._one("SELECT count(*) FROM expected")
        if self._con.execute(_PARTNERS).fetchall() != [(expected, expected)]:
            for part, doc_id, page, partners in self._con.execute(_ODD, [self._most]).fetchall():
                how = "is in it more than once" if partners > 1 else "is not in it as the ledger says"
                self._problem(f"{part}: page {page} of {doc_id} {how}")
        self._con.unregister("stored")
        if rows.shown:
            self._con.register("stored", pa.concat_tables(rows.shown))
            self._con.execute(
                f"INSERT INTO shown_image SELECT DISTINCT s.doc_id, s.image FROM stored s SEMI JOIN expected e ON {_SAME_ROW}"
            )
            self._con.unregister("stored")

    def _read(self, batch: list[_Part]) -> _Rows:
        rows = _Rows()
        for part, data in fetched(self._store, batch, lambda part: part.key, lambda part: part.size):
            if not self._check_hash(part.key, part.key, data):
                rows.damaged.append(part.no)
                continue
            try:
                for decoded in pq.ParquetFile(pa.BufferReader(data)).iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                    _identify(part, decoded, rows)
            except (pa.ArrowException, OSError, KeyError) as error:
                rows.damaged.append(part.no)
                self._problem(f"{part.key}: not a part: {error}")
        return rows

    def _one(self, sql: str) -> int:
        return int(self._con.execute(sql).fetchall()[0][0])


def _identify(part: _Part, decoded: pa.RecordBatch, rows: _Rows) -> None:
    """
    Raises:
        KeyError: a column is not there.
    """
    columns = [decoded.column(name) for name in ("doc_id", "page_index", "attempt", "state")]
    numbers = pa.repeat(pa.scalar(part.no, pa.int64()), len(decoded))
    stored = pa.table([numbers, *columns], names=_STORED.names).cast(_STORED)
    rows.stored.append(stored)
    at, images = _images(decoded)
    if images:
        identity = stored.select(_IDENTITY.names).take(pa.array(at))
        rows.shown.append(identity.append_column(_SHOWN.field("image"), pa.array(images, pa.string())))


def _images(decoded: pa.RecordBatch) -> tuple[list[int], list[str]]:
    """Row and name of each image file that a row shows. Only blocks that may show one become Python objects: 11 us a page of 20
    blocks; all of them took 342."""
    if "blocks" not in decoded.schema.names:
        return [], []
    blocks = decoded.column("blocks")
    flat, parents = pc.list_flatten(blocks), pc.list_parent_indices(blocks)
    if not len(flat):
        return [], []
    columns = {name: flat.field(name) if flat.type.get_field_index(name) >= 0 else pa.nulls(len(flat), pa.string())
               for name in ("image", "html")}  # fmt: skip
    in_html = pc.fill_null(pc.match_substring_regex(columns["html"], _SHOWS_IMAGE), False)
    where = pc.indices_nonzero(pc.or_(pc.is_valid(columns["image"]), in_html))
    some = pa.table(columns).take(where).to_pylist()
    found = sorted({(row, image) for row, block in zip(parents.take(where).to_pylist(), some, strict=True)
                    for image in images_of(block)})  # fmt: skip
    return [row for row, _ in found], [image for _, image in found]
