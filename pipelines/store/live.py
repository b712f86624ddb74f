"""Live spans: the one rule for readers over a whole ledger, in bounded memory.

Invariant: `live_span` says of every page what the view `live_page` says. That view sorts every page, 250 MiB a million. But
where the records of a document name no page twice, each record that counts is live as a whole; only documents of which a page
was read again go page by page, some of them at a time. So what is looked at is spans, and what is sorted is 20 bytes of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb

from pipelines.store.state import install_asked

_BATCH_PAGES = 2_000_000  # some 500 MiB while DuckDB sorts them
_STEP = 10_000  # rows of a table that are in memory

# Documents of which two records may name one page, or one record is odd. By a hash of their names: two that share one only make
# both go the long way. Pages of a record are ascending; a record with gaps may interleave with another and counts as if it did
_REPEATED = """
CREATE OR REPLACE TABLE repeated_document AS
WITH span AS (SELECT hash(doc_id) AS document, pages[1] AS first, pages[-1] AS last,
                     len(pages) = len(states) AND pages::BIGINT[] = range(pages[1], pages[-1] + 1) AS plain
              FROM ledger WHERE kind = 'span'),
     ordered AS (SELECT document, first, max(last) OVER (PARTITION BY document ORDER BY first
                                          ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM span),
     odd AS (SELECT document FROM ordered WHERE first <= before UNION
             SELECT document FROM span WHERE NOT coalesce(plain, false))
SELECT s.doc_id, sum(len(s.pages))::BIGINT AS pages FROM ledger s SEMI JOIN odd o ON o.document = hash(s.doc_id)
WHERE s.kind = 'span' GROUP BY s.doc_id;
"""

_OF_WHOLE_RECORDS = """
CREATE OR REPLACE TABLE live_span AS
SELECT coalesce(m.new_part, s.part) AS part, s.doc_id, s.attempt, s.pages, s.states, s.number * 1000000 + s."row" AS position
FROM ledger s LEFT JOIN part_moved m ON m.old_part = s.part
LEFT JOIN (SELECT DISTINCT doc_id, revision FROM ledger WHERE kind = 'document') c
       ON c.doc_id = s.doc_id AND c.revision = s.revision
LEFT JOIN (SELECT DISTINCT doc_id FROM ledger WHERE kind = 'document') d ON d.doc_id = s.doc_id
ANTI JOIN repeated_document r ON r.doc_id = s.doc_id
WHERE s.kind = 'span' AND (c.doc_id IS NOT NULL OR (d.doc_id IS NULL AND s.revision = 1))
"""

_OF_PAGES = "INSERT INTO live_span SELECT part, doc_id, attempt, [page_index], [state], position FROM live_page_asked"


def find_repeated(con: duckdb.DuckDBPyConnection) -> None:
    """The table `repeated_document`: of all others each page is named by one span record."""
    con.execute(_REPEATED)


def ask_repeated(con: duckdb.DuckDBPyConnection, most_pages: int = _BATCH_PAGES) -> Iterator[None]:
    """Makes these documents those of the views `*_asked`, some at a time, until each was there once."""
    install_asked(con)
    ((pages,),) = con.execute("SELECT coalesce(sum(pages), 0) FROM repeated_document").fetchall()
    batches = -(-int(pages) // most_pages)
    for number in range(batches):
        con.execute("DELETE FROM asked")
        con.execute("INSERT INTO asked SELECT doc_id FROM repeated_document WHERE hash(doc_id) % ? = ?", [batches, number])
        yield


def install_live_spans(con: duckdb.DuckDBPyConnection, most_pages: int = _BATCH_PAGES) -> None:
    """The table `live_span` (part, doc_id, attempt, pages, states, position) over a connection with the ledger's views; its
    records name each live page once."""
    find_repeated(con)
    con.execute(_OF_WHOLE_RECORDS)
    for _ in ask_repeated(con, most_pages):
        con.execute(_OF_PAGES)


def numbered_rows(con: duckdb.DuckDBPyConnection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table in the order of its column `no`, which counts from 1: some thousand in memory, and no result open
    between them, which would keep others from registering what they bring."""
    start = 0
    sql = f"SELECT {columns} FROM {table} WHERE no > ? AND no <= ? ORDER BY no"
    while some := con.execute(sql, [start, start + _STEP]).fetchall():
        yield from some
        start += _STEP
