"""Reading an output back: the one rule for readers applied to parts, as Arrow tables or DuckDB views.

Invariant: only parts that a live span record names are opened; an orphan, a superseded or a half-done reading is never seen
unless `history` asks for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import duckdb
import pyarrow as pa

from pipelines.errors import ConfigError
from pipelines.output import check_format, is_run_id, lanes_of, no_output
from pipelines.schema import PAGES
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.one_document import document_markdown
from pipelines.store.parts import part_bytes
from pipelines.store.state import install_views

What = Literal["pages", "blocks", "documents", "sources", "versions"]

_PAGE_COLUMNS = ", ".join(f"p.{name}" for name in PAGES.names)

_READING_VIEWS = f"""
CREATE OR REPLACE VIEW {{prefix}}pages AS
SELECT {_PAGE_COLUMNS}, l.part AS part
FROM part_rows p JOIN live_page l ON l.doc_id = p.doc_id AND l.page_index = p.page_index AND l.attempt = p.attempt
     AND parse_filename(l.part) = p.part_name  -- two compactions at once may have copied a row twice
SEMI JOIN named_document n ON n.doc_id = p.doc_id;

CREATE OR REPLACE VIEW {{prefix}}blocks AS
SELECT doc_id, page_index, revision, state, unnest(blocks, recursive := true) FROM {{prefix}}pages;

CREATE OR REPLACE VIEW {{prefix}}documents_history AS
SELECT d.doc_id, d.revision, d.state, d.error_code, d.error_message, d.page_count, d.ok, d.blank, d.degraded, d.failed,
       d.retryable, d.markdown, u.uris, u.format, r.fingerprint, r.options, d.run_id, d."at" AS completed_at
FROM document_all d
LEFT JOIN revision_opened r ON r.doc_id = d.doc_id AND r.revision = d.revision
LEFT JOIN (SELECT doc_id, list(uri ORDER BY uri) AS uris, any_value(format) AS format FROM source_latest GROUP BY doc_id) u
       ON u.doc_id = d.doc_id;

CREATE OR REPLACE VIEW {{prefix}}documents AS
SELECT * FROM {{prefix}}documents_history h SEMI JOIN named_document n ON n.doc_id = h.doc_id
QUALIFY row_number() OVER (PARTITION BY h.doc_id ORDER BY h.revision DESC) = 1;

CREATE OR REPLACE VIEW {{prefix}}sources AS SELECT * FROM source_latest;

-- what each URI held, one document after another
CREATE OR REPLACE VIEW {{prefix}}versions AS
SELECT uri, row_number() OVER w AS version, doc_id, "at" AS since, lead("at") OVER w AS until
FROM (SELECT uri, doc_id, "at", number, "row" FROM ledger WHERE kind = 'source' AND doc_id IS NOT NULL
      QUALIFY doc_id IS DISTINCT FROM lag(doc_id) OVER (PARTITION BY uri ORDER BY number, "row"))
WINDOW w AS (PARTITION BY uri ORDER BY number, "row");

CREATE OR REPLACE VIEW {{prefix}}sources_history AS
SELECT uri, etag, size, mtime_ns, ctime_ns, inode, presence, doc_id, format, page_count, error_code, error_message, run_id,
       "at", number, "row" FROM ledger WHERE kind = 'source';
"""

_HISTORY_VIEWS = f"""
CREATE OR REPLACE VIEW {{prefix}}pages_history AS
SELECT {_PAGE_COLUMNS}, l.part IS NOT NULL AS is_live
FROM part_rows_all p LEFT JOIN live_page l ON l.doc_id = p.doc_id AND l.page_index = p.page_index AND l.attempt = p.attempt
SEMI JOIN span_page s ON s.doc_id = p.doc_id AND s.page_index = p.page_index AND s.attempt = p.attempt
     AND parse_filename(s.part) = p.part_name;

CREATE OR REPLACE VIEW {{prefix}}blocks_history AS
SELECT doc_id, page_index, revision, state, is_live, unnest(blocks, recursive := true) FROM {{prefix}}pages_history;
"""

_RUN_VIEW = """
CREATE OR REPLACE VIEW run_page AS
SELECT s.doc_id, s.page_index, s.attempt, coalesce(m.new_part, s.part) AS part
FROM span_page s SEMI JOIN chosen_run r ON r.run_id = s.run_id LEFT JOIN part_moved m ON m.old_part = s.part
QUALIFY row_number() OVER (PARTITION BY s.doc_id, s.page_index ORDER BY s.position DESC) = 1
"""

_LARGE = 16 << 20  # bytes of a ledger: some 4 million pages

_ORDER = {
    "pages": "doc_id, page_index", "blocks": "doc_id, page_index, block_index", "documents": "doc_id", "sources": "uri",
    "versions": "uri, version",
}  # fmt: skip


class Output:
    """An output, opened for reading: a snapshot of its ledger as it was then.

    Args:
        parts: whether to open the parts too; False: the ledger's views alone (audit, status).
        published: without what unpublished runs read: an older reading, an older document of a URI, or nothing stands for it.

    Raises:
        ConfigError: not an output, or one of a newer major format.
    """

    def __init__(
        self, uri: str, storage_options: Mapping[str, Any] | None = None, parts: bool = True, published: bool = False
    ) -> None:
        self.store = ObjectStore(uri, storage_options)
        try:
            check_format(self.store)
        except FileNotFoundError:
            raise no_output(uri, self.store) from None
        self._scratch = tempfile.TemporaryDirectory(prefix="pagemill-read-")
        self.ledgers = [Ledger(self.store, lane, scratch=Path(self._scratch.name)) for lane in lanes_of(self.store)]
        for ledger in self.ledgers:
            ledger.refresh()
        self.published = published
        # what does not fit into memory; DuckDB's own choice is `.tmp` in the folder of whoever reads
        spilled = {"temp_directory": self._scratch.name}
        if parts:
            self.con = duckdb.connect(config=spilled)
            self.install(self.con, "")
        else:
            # tables in a file: they are compressed, and 100 million pages cost disk, not memory; a small one is faster without
            large = sum(path.stat().st_size for ledger in self.ledgers for path in ledger.paths) > _LARGE
            file = str(Path(self._scratch.name) / "state.duckdb") if large else ":memory:"
            self.con = duckdb.connect(file, config={**spilled, "memory_limit": "1024MiB"})
            self._install_ledger(self.con, published)

    def guard(self) -> None:
        """From now on the output's own connection reads this output and nothing else, and cannot be told otherwise: for
        queries of which somebody else typed a part."""
        folders = [self._scratch.name] + [str(path) for path in [self.store.local_path("")] if path is not None]
        quoted = ", ".join("'" + folder.replace("'", "''").rstrip("/") + "'" for folder in folders)
        for setting in (
            "memory_limit = '2GiB'",
            "python_enable_replacements = false",
            f"allowed_directories = [{quoted}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self.con.execute(f"SET {setting}")

    def install(self, con: duckdb.DuckDBPyConnection, prefix: str, published: bool | None = None) -> None:
        """Creates the reading views, their names behind `prefix`, in a connection.

        Args:
            published: as of the constructor; None: as it was told.
        """
        self._install_ledger(con, self.published if published is None else published)
        self._install_parts(con, "live_page", "part_rows")
        con.execute(_READING_VIEWS.format(prefix=prefix))

    def _install_ledger(self, con: duckdb.DuckDBPyConnection, published: bool) -> None:
        install_views(con, [ledger.paths for ledger in self.ledgers], Path(self._scratch.name), published)

    def install_history(self, con: duckdb.DuckDBPyConnection, prefix: str) -> None:
        """The views `pages_history` and `blocks_history`, over every part that a record names, superseded ones too."""
        self._install_parts(con, "(SELECT s.part FROM span_page s ANTI JOIN part_gone g ON g.part = s.part)", "part_rows_all")
        con.execute(_HISTORY_VIEWS.format(prefix=prefix))

    def check_run(self, run_id: str) -> None:
        """
        Raises:
            ConfigError: the ledger has no such run.
        """
        if not is_run_id(run_id):
            raise ConfigError(f"{run_id!r} is no run's id")
        runs = self.con.execute("SELECT DISTINCT run_id FROM ledger WHERE kind = 'run' ORDER BY 1 DESC").fetchall()
        if (run_id,) not in runs:
            newest = ", ".join(str(row[0]) for row in runs[:5])
            raise ConfigError(f"no run {run_id} in {self.store.root}; the newest are {newest or 'none'}")

    def install_run(self, run_id: str) -> None:
        """The view `run_pages`: every page as this run read it, whatever came after.

        Raises:
            ConfigError: the ledger has no such run.
        """
        self.check_run(run_id)
        self.con.execute("CREATE OR REPLACE TEMP TABLE chosen_run AS SELECT ? AS run_id", [run_id])
        self.con.execute(_RUN_VIEW)
        self._install_parts(self.con, "run_page", "part_rows_run")
        self.con.execute("CREATE OR REPLACE VIEW run_pages AS SELECT p.* FROM part_rows_run p SEMI JOIN run_page l "
                         "ON l.doc_id = p.doc_id AND l.page_index = p.page_index AND l.attempt = p.attempt")  # fmt: skip

    def _install_parts(self, con: duckdb.DuckDBPyConnection, naming: str, view: str) -> None:
        parts = [str(row[0]) for row in con.execute(f"SELECT DISTINCT part FROM {naming} ORDER BY part").fetchall()]
        # the empty part brings the columns that parts of an older minor version lack
        paths = [self._part_path(part) for part in parts] + [self._no_part()]
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        con.execute(
            f"CREATE OR REPLACE VIEW {view} AS SELECT *, parse_filename(filename) AS part_name "
            f"FROM read_parquet([{quoted}], union_by_name = true, filename = true)"
        )

    def read(self, what: What, columns: Sequence[str] | None = None, history: bool = False) -> pa.Table:
        return self._relation(what, columns, history).to_arrow_table()

    def read_batches(self, what: What, columns: Sequence[str] | None = None, history: bool = False) -> pa.RecordBatchReader:
        return self._relation(what, columns, history).to_arrow_reader(10_000)

    def markdown(self, document: str, page: int | None = None) -> str:
        """A document's Markdown, or one page's (index from 0), by its id, its URI, or enough of either.

        Raises:
            ConfigError: none or several match, or there is no such page.
        """
        return document_markdown(self.con, self.store, document, page)

    def close(self) -> None:
        self.con.close()
        for ledger in self.ledgers:
            ledger.close()
        self._scratch.cleanup()

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _relation(self, what: What, columns: Sequence[str] | None, history: bool) -> duckdb.DuckDBPyRelation:
        if what not in _ORDER:
            raise ConfigError(f"cannot read {what!r}: pages, blocks, documents, sources or versions")
        if history and what in ("pages", "blocks"):
            self.install_history(self.con, "")
        wanted = ", ".join(f'"{column}"' for column in columns) if columns else "*"
        view = f"{what}_history" if history and what != "versions" else what
        return self.con.sql(f"SELECT {wanted} FROM {view} ORDER BY {_ORDER[what]}")

    def _part_path(self, part: str) -> str:
        local = self.store.local_path(part)
        if local is not None:
            return str(local)
        path = Path(self._scratch.name) / Path(part).name
        if not path.exists():
            self.store.get_to_file(part, path)
        return str(path)

    def _no_part(self) -> str:
        path = Path(self._scratch.name) / "no-part.parquet"
        path.write_bytes(part_bytes([]))
        return str(path)


def comparable(table: pa.Table) -> pa.Table:
    """A `pages` table without what may differ between two equal runs (P2, P5).

    Volatile columns are dropped, also inside blocks; a row marked `timing` keeps its identity only.
    """
    kept = [name for name in PAGES.names if not _is_volatile(PAGES.field(name)) and name in table.column_names]
    rows = table.select(kept).to_pylist()
    plain = []
    for row in rows:
        if row.get("timing"):
            row = {"doc_id": row["doc_id"], "page_index": row["page_index"], "timing": True}
        else:
            row["blocks"] = [{k: v for k, v in block.items() if k != "seconds"} for block in row["blocks"] or []]
        plain.append(row)
    plain.sort(key=lambda row: (row["doc_id"], row["page_index"]))
    return pa.Table.from_pylist(plain)


def _is_volatile(field: pa.Field) -> bool:
    return bool(field.metadata) and b"volatile" in field.metadata
