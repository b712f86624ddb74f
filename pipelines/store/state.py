"""What the ledger says, as DuckDB views over its files: the one rule for readers, and what planning asks.

Invariant: everything here is derived from the records' order `(lane, number, row)` alone. A page's live row is the one
whose attempt is named by the newest span record that covers it among complete revisions, or, while a document has none,
of its first; so orphan parts, overlapping receipts and superseded readings need no second protocol.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store.publishing import hold_back_unpublished, show_everything
from pipelines.store.records import RECORDS

if TYPE_CHECKING:
    from pipelines.store.ledger import LedgerFile

_VIEWS = """
-- the newest record of each URI; a vanished one keeps the document that it had.
-- Its position first and its columns by a join: unlike arg_max of a struct, DuckDB can spill both to disk
CREATE OR REPLACE VIEW source_latest AS
SELECT l.uri, l.etag, l.size, l.mtime_ns, l.ctime_ns, l.inode, l.presence, l.doc_id, l.format, l.page_count, l.flags, l.tries,
       l.retryable, l.error_code, l.error_message, l.run_id, l."at", l.number, n.history
FROM ledger l
JOIN (SELECT uri, count(*)::INTEGER AS history, max(number * 1000000 + "row") AS position
      FROM ledger WHERE kind = 'source' GROUP BY uri) n ON n.uri = l.uri AND n.position = l.number * 1000000 + l."row"
WHERE l.kind = 'source';

CREATE OR REPLACE VIEW revision_opened AS
SELECT doc_id, revision, any_value(pages) AS pages, any_value(fingerprint) AS fingerprint, any_value(run_id) AS run_id,
       any_value(tries) AS tries, any_value(blocks) AS blocks, any_value(options) AS options
FROM ledger WHERE kind = 'revision' GROUP BY doc_id, revision;

-- complete revisions, with what each said when it was completed
CREATE OR REPLACE VIEW document_all AS
SELECT l.doc_id, l.revision, l.state, l.error_code, l.error_message, l.page_count, l.ok, l.blank, l.degraded, l.failed,
       l.retryable, l.markdown, l.tries, l.run_id, l."at"
FROM ledger l
JOIN (SELECT doc_id, revision, max(number * 1000000 + "row") AS position FROM ledger WHERE kind = 'document'
      GROUP BY doc_id, revision) n ON n.doc_id = l.doc_id AND n.position = l.number * 1000000 + l."row"
WHERE l.kind = 'document';

CREATE OR REPLACE VIEW document_latest AS
SELECT d.* FROM document_all d
JOIN (SELECT doc_id, max(revision) AS revision FROM ledger WHERE kind = 'document' GROUP BY doc_id) n
ON n.doc_id = d.doc_id AND n.revision = d.revision;

CREATE OR REPLACE VIEW part_moved AS
SELECT old_part, arg_max(new_part, number * 1000000 + "row") AS new_part
FROM ledger WHERE kind = 'moved' AND new_part IS NOT NULL GROUP BY old_part;

-- superseded parts that gc deleted
CREATE OR REPLACE VIEW part_gone AS SELECT DISTINCT old_part AS part FROM ledger WHERE kind = 'moved' AND new_part IS NULL;

-- documents that the newest record of at least one URI names
CREATE OR REPLACE VIEW named_document AS SELECT DISTINCT doc_id FROM source_latest WHERE doc_id IS NOT NULL;
"""

# the one rule for readers, over all records or over those of some documents
_PAGES = """
-- each page that a span record covers, with the part in which its row is now
CREATE OR REPLACE VIEW span_page{of} AS
SELECT s.doc_id, s.revision, s.attempt, coalesce(m.new_part, s.part) AS part, s.tries, s.run_id, s.fingerprint,
       s.number * 1000000 + s."row" AS position, unnest(s.pages) AS page_index, unnest(s.states) AS state, unnest(s.codes) AS code
FROM {records} s LEFT JOIN part_moved m ON m.old_part = s.part WHERE s.kind = 'span';

-- of each revision, complete or not, the newest span record that covers a page
CREATE OR REPLACE VIEW revision_page{of} AS
SELECT * FROM span_page{of}
QUALIFY row_number() OVER (PARTITION BY doc_id, revision, page_index ORDER BY position DESC) = 1;

-- the one rule
CREATE OR REPLACE VIEW live_page{of} AS
SELECT s.doc_id, s.page_index, s.revision, s.attempt, s.part, s.state, s.code, s.tries, s.run_id, s.fingerprint, s.position
FROM span_page{of} s
LEFT JOIN (SELECT DISTINCT doc_id, revision FROM {records} WHERE kind = 'document') c
       ON c.doc_id = s.doc_id AND c.revision = s.revision
LEFT JOIN (SELECT DISTINCT doc_id FROM {records} WHERE kind = 'document') d ON d.doc_id = s.doc_id
WHERE c.doc_id IS NOT NULL OR (d.doc_id IS NULL AND s.revision = 1)
QUALIFY row_number() OVER (PARTITION BY s.doc_id, s.page_index ORDER BY s.position DESC) = 1;
"""
_OF_ALL = _PAGES.format(of="", records="ledger")
_OF_ASKED = "CREATE OR REPLACE TABLE asked (doc_id VARCHAR);" + _PAGES.format(
    of="_asked", records="(SELECT l.* FROM ledger l SEMI JOIN asked a ON a.doc_id = l.doc_id)"
)


class LedgerState:
    """A snapshot of one or more lanes in a DuckDB connection, spilling to `scratch` beyond `memory_mib`.

    The views of `_VIEWS` and `_PAGES` are there; `con` is open for further queries. `live_page_asked` and its like say of the
    documents of the last `ask` what `live_page` says of all: a third less CPU than filtering it, over 3,000,000 pages.
    """

    def __init__(
        self, files: Sequence[Path], scratch: Path, memory_mib: int = 1024, more_lanes: Sequence[Sequence[Path]] = (),
        published: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            files: of one lane. more_lanes: of those after it, where several are seen as one.
            published: leave out what unpublished runs read.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        # tables in a file: they are compressed, and a million documents more cost disk, not memory
        self.con = duckdb.connect(
            str(scratch / f"state-{secrets.token_hex(4)}.duckdb"),
            config={"memory_limit": f"{memory_mib}MiB", "temp_directory": str(scratch), "preserve_insertion_order": "false"},
        )
        install_views(self.con, [files, *more_lanes], scratch, published)
        install_asked(self.con)

    def rows(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = self.con.execute(sql, list(parameters)).fetchall()
        return found

    def table(self, sql: str) -> pa.Table:
        return self.con.sql(sql).to_arrow_table()

    def ask(self, doc_ids: pa.Array) -> None:
        """Makes these the documents of the views `*_asked`."""
        self.con.register("wanted", pa.table({"doc_id": doc_ids}))
        self.con.execute("DELETE FROM asked; INSERT INTO asked SELECT DISTINCT doc_id FROM wanted")
        self.con.unregister("wanted")

    def open_revisions(self, doc_ids: pa.Array) -> pa.Table:
        """Of these documents each unfinished revision: doc_id, revision, tries, pages, blocks, options, missing (not covered)."""
        self.ask(doc_ids)
        return self.table("""
            SELECT r.doc_id, r.revision, r.tries, r.pages, any_value(r.blocks) AS blocks,
                   any_value(r.options) AS options, list_sort(list_filter(r.pages,
                     lambda p: NOT list_contains(coalesce(any_value(c.covered), []::INTEGER[]), p))) AS missing
            FROM revision_opened r SEMI JOIN asked a ON a.doc_id = r.doc_id
            LEFT JOIN (SELECT doc_id, revision, list(page_index) AS covered FROM revision_page_asked GROUP BY doc_id, revision) c
                   ON c.doc_id = r.doc_id AND c.revision = r.revision
            ANTI JOIN document_all d ON d.doc_id = r.doc_id AND d.revision = r.revision
            GROUP BY r.doc_id, r.revision, r.tries, r.pages ORDER BY r.doc_id, r.revision""")

    def close(self) -> None:
        self.con.close()


def install_asked(con: duckdb.DuckDBPyConnection) -> None:
    """An empty table `asked` of documents, and the views `*_asked`: the rule over the records of these alone."""
    con.execute(_OF_ASKED)


def copies(files: Iterable[LedgerFile], doc_ids: Sequence[str]) -> dict[str, list[str]]:
    """The URIs that hold each of these documents, as these files of a ledger say."""
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="pagemill-copies-") as scratch:
        state = LedgerState([file.path for file in files], Path(scratch))
        sql = """SELECT doc_id, uri FROM source_latest
                 WHERE presence = 'present' AND error_code IS NULL AND list_contains($1, doc_id) ORDER BY uri"""
        for doc_id, uri in state.rows(sql, [list(doc_ids)]):
            found.setdefault(str(doc_id), []).append(str(uri))
        state.close()
    return found


# what all lanes say together: a document belongs to the lowest lane in which it is complete, else to the lowest that has it;
# what other lanes say of its pages counts in those lanes only
_SEVERAL = """
CREATE OR REPLACE VIEW document_lane AS
SELECT doc_id, coalesce(min(lane) FILTER (kind = 'document'), min(lane)) AS lane
FROM lane_record WHERE kind IN ('revision', 'document') GROUP BY doc_id;

CREATE OR REPLACE VIEW ledger AS
SELECT * EXCLUDE (lane) FROM lane_record WHERE kind NOT IN ('revision', 'span', 'document')
UNION ALL
SELECT r.* EXCLUDE (lane) FROM lane_record r JOIN document_lane d ON d.doc_id = r.doc_id AND d.lane = r.lane
WHERE r.kind IN ('revision', 'span', 'document');
"""
_ONE = "CREATE OR REPLACE VIEW ledger AS SELECT * EXCLUDE (lane) FROM lane_record;"


def install_views(
    con: duckdb.DuckDBPyConnection, lanes: Sequence[Sequence[Path]], scratch: Path, published: bool = False
) -> None:  # fmt: skip
    """Creates the view `ledger` over the Parquet files of these lanes, and those that follow from it; `lane_record` has every
    record with its lane.

    Args:
        scratch: an existing folder, for a file without records: it brings the columns that an empty ledger, or files of an older
            minor version, lack.
        published: leave out what unpublished runs read.
    """
    empty = scratch / "empty.parquet"
    pq.write_table(RECORDS.empty_table(), empty)
    selects = []
    for lane, files in enumerate(lanes):
        quoted = ", ".join("'" + str(file).replace("'", "''") + "'" for file in [*files, empty])
        selects.append(f"SELECT *, {lane} AS lane FROM read_parquet([{quoted}], union_by_name = true)")
    con.execute("CREATE OR REPLACE VIEW lane_record_whole AS " + " UNION ALL BY NAME ".join(selects))
    hold_back_unpublished(con) if published else show_everything(con)
    con.execute(_ONE if len(lanes) == 1 else _SEVERAL)
    con.execute(_VIEWS)
    con.execute(_OF_ALL)
