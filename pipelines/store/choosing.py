"""Choosing pages and blocks of an output: by a predicate that somebody typed, or by a file of ids.

Invariant: of what was typed one expression is executed, behind WHERE, on a connection that reaches no file but the output's
own, loads nothing and cannot be told otherwise. A file of ids is read by this process, never by the expression.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.errors import ConfigError
from pipelines.options import Prints
from pipelines.source.listing import is_remote
from pipelines.source.remote import RemoteSource
from pipelines.store.reading import Output

_IDS = {"doc_id": pa.string(), "page_index": pa.int32(), "block_index": pa.int32()}


@dataclass(slots=True, frozen=True)
class Choice:
    """What somebody asked for; parts that are given must hold together."""

    where: str | None = None  # over the rows described in `choose`
    blocks: str | None = None  # over the columns of `blocks`: of the pages exactly these blocks
    ids: pa.Table | None = None  # doc_id, page_index (null: all pages), block_index (null: the whole page)

    def words(self) -> str:
        ids = f"of {self.ids.num_rows} rows" if self.ids is not None else None
        given = [("--where", self.where), ("--blocks", self.blocks), ("--pages", ids)]
        return " ".join(f"{name} {value}" for name, value in given if value is not None)

    def digest(self, fingerprint: str) -> str:
        """The same for the same request under the same configuration, 16 hex digits."""
        ids = self.ids.to_pydict() if self.ids is not None else None
        told = json.dumps([self.where, self.blocks, ids, fingerprint])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def read_ids(path: str, storage_options: Mapping[str, Any]) -> pa.Table:
    """Ids from a Parquet or CSV file, local or remote: doc_id, and if wanted page_index and block_index, counted from 0.

    Raises:
        ConfigError: not readable, or without these columns.
    """
    try:
        if is_remote(path):
            remote = RemoteSource(path, storage_options)
            with remote.opened(remote.path) as copy:
                table = _table(path, copy)
        else:
            table = _table(path, path)
        if "doc_id" not in table.column_names:
            raise ConfigError(f"--pages {path}: no column doc_id; it has {', '.join(table.column_names)}")
        columns = [
            table.column(name).combine_chunks().cast(kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
            for name, kind in _IDS.items()
        ]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"--pages {path}: {error}") from None
    return pa.table(dict(zip(_IDS, columns, strict=True)))


def _table(name: str, path: str) -> pa.Table:
    if name.lower().endswith(".csv"):
        return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types={"doc_id": pa.string()}))
    return pq.read_table(path)


def checked(option: str, predicate: str) -> str:
    """A predicate as it may stand behind WHERE.

    Raises:
        ConfigError: it is not one expression, whole in itself.
    """
    wanted = ConfigError(f"{option} {predicate}: expected one condition, e.g. \"state = 'failed'\"")
    if not predicate.strip():
        raise wanted
    con = duckdb.connect(config={"temp_directory": ""})  # it only parses
    try:
        ((told,),) = con.execute("SELECT json_serialize_sql(?)", [f"SELECT {predicate}"]).fetchall()
    finally:
        con.close()
    parsed = json.loads(told)
    if parsed.get("error_type") == "not implemented":  # several statements, or one that is no SELECT
        raise wanted
    if parsed.get("error"):
        raise ConfigError(f"{option} {predicate}: {parsed.get('error_message', 'not SQL')}")
    nodes = [statement["node"] for statement in parsed["statements"]]
    if len(nodes) != 1 or not _is_expression(nodes[0]):
        raise wanted
    return f"(\n{predicate}\n)"  # line ends: a comment in it ends there


def _is_expression(node: Mapping[str, Any]) -> bool:
    """Whether a parsed `SELECT x` is that and nothing more."""
    clauses = ("where_clause", "having", "qualify", "sample", "group_expressions", "modifiers")
    if node.get("type") != "SELECT_NODE" or any(node.get(name) for name in clauses):
        return False
    selected = node["select_list"]
    return (
        node["from_table"]["type"] == "EMPTY"
        and len(selected) == 1
        and not selected[0].get("alias")
        and selected[0].get("class") != "STAR"
    )


_DOCUMENTS = """
CREATE OR REPLACE VIEW document_choice AS
SELECT s.doc_id, min(s.uri) AS uri, list(s.uri ORDER BY s.uri) AS uris, any_value(s.format) AS format,
       any_value(d.page_count) AS page_count, any_value(d.state) AS document_state,
       any_value(coalesce(p.fingerprint, '{current}')) AS current
FROM source_latest s LEFT JOIN document_latest d ON d.doc_id = s.doc_id
LEFT JOIN (SELECT doc_id, arg_max(options, revision) AS options FROM ledger WHERE kind = 'revision' AND options IS NOT NULL
           GROUP BY doc_id) o ON o.doc_id = s.doc_id
LEFT JOIN option_print p ON p.options = o.options
WHERE s.doc_id IS NOT NULL GROUP BY s.doc_id
"""

# what the ledger alone knows of a page; no part is opened
_OF_LEDGER = """
SELECT l.doc_id, l.page_index, l.revision, l.state, nullif(l.code, '') AS error_code, l.tries, l.attempt, l.part, l.run_id,
       coalesce(l.fingerprint, r.fingerprint) AS fingerprint
FROM live_page l LEFT JOIN revision_opened r ON r.doc_id = l.doc_id AND r.revision = l.revision
"""

_ROWS = """
CREATE OR REPLACE VIEW page_choice AS
SELECT p.*, d.uri, d.uris, d.format, d.page_count, d.document_state, d.current
FROM ({pages}) p JOIN document_choice d ON d.doc_id = p.doc_id
UNION ALL BY NAME
SELECT d.doc_id, c.uri, c.uris, c.format, d.revision, d.state, d.error_code, d.tries, d.run_id, d.state AS document_state,
       c.current
FROM document_latest d JOIN document_choice c ON c.doc_id = d.doc_id WHERE d.page_count IS NULL
UNION ALL BY NAME
SELECT s.uri, [s.uri] AS uris, 'failed' AS state, s.error_code, s.tries, s.run_id, '{current}' AS current
FROM source_latest s WHERE s.error_code IS NOT NULL AND s.presence = 'present'
"""

_CHOOSE = """
CREATE OR REPLACE TABLE chosen AS
SELECT c.doc_id, c.uri, c.page_index, any_value(c.current) AS current, any_value(c.state) AS state,
       any_value(c.error_code) AS error_code,
       any_value(c.fingerprint) AS fingerprint,
       CASE WHEN bool_and({blocks} IS NOT NULL) THEN list_sort(list_distinct(flatten(list({blocks})))) END AS blocks
FROM (SELECT * FROM page_choice WHERE {where}) c {of_blocks} {of_ids}
GROUP BY c.doc_id, c.uri, c.page_index
"""
_OF_BLOCKS = """JOIN (SELECT doc_id, page_index, list(block_index ORDER BY block_index) AS blocks FROM blocks WHERE {predicate}
GROUP BY doc_id, page_index) b ON b.doc_id = c.doc_id AND b.page_index = c.page_index"""
_OF_IDS = """JOIN (SELECT doc_id, page_index, CASE WHEN bool_and(block_index IS NOT NULL)
                          THEN list(block_index) END AS blocks
                   FROM ids GROUP BY doc_id, page_index) i
ON i.doc_id = c.doc_id AND (i.page_index IS NULL OR i.page_index = c.page_index)"""


def choose(output: Output, choice: Choice, prints: Prints = lambda _: ("", ""), most: int | None = None) -> None:
    """Creates the table `chosen` (doc_id, uri, page_index, state, error_code, fingerprint, blocks) in the output's connection,
    which is `guarded` from then on.

    A row that `choice.where` judges is a live page with the columns of `pages`, and `uri`, `uris`, `format`, `page_count`,
    `document_state`, `current`; or, with a null page_index, a document that could not be opened or an object that could not
    be fetched (then doc_id is null too). The views pages, blocks, documents and sources may be asked.

    Args:
        output: opened without its parts: they are looked at only when the predicate asks for what the ledger does not have.
        prints: of documents by their options; the fingerprint is what the predicate knows as `current`.
        most: rows; 0 finds out whether the predicate is one.

    Raises:
        ConfigError: a predicate that is none, or asks for what is not there.
    """
    con = output.con
    where = checked("--where", choice.where) if choice.where is not None else "true"
    of_blocks = _OF_BLOCKS.format(predicate=checked("--blocks", choice.blocks)) if choice.blocks is not None else ""
    output.guard()
    current = prints("")[0]
    add_option_prints(con, prints)
    con.execute(_DOCUMENTS.format(current=current))
    lists = ["b.blocks"] * bool(of_blocks) + ["i.blocks"] * (choice.ids is not None)
    if choice.ids is not None:
        con.register("ids", choice.ids)
    query = _CHOOSE.format(
        where=where, of_blocks=of_blocks, of_ids=_OF_IDS if choice.ids is not None else "",
        blocks="list_intersect(b.blocks, coalesce(i.blocks, b.blocks))" if len(lists) > 1 else [*lists, "NULL::INTEGER[]"][0],
    )  # fmt: skip
    query += f" LIMIT {most}" if most is not None else ""
    try:
        try:
            con.execute(_ROWS.format(pages=_OF_LEDGER, current=current))
            con.execute(query)
        except (duckdb.BinderException, duckdb.CatalogException):
            output.install(con, "")
            con.execute(_ROWS.format(pages="SELECT * FROM pages", current=current))
            con.execute(query)
    except duckdb.Error as error:
        told = [line.strip() for line in str(error).splitlines()]
        near = next((f" {line}" for line in told if line.startswith("Candidate bindings")), "")  # names like the one that is none
        raise ConfigError(f"{choice.words()}: {told[0]}{near}") from None
    finally:
        if choice.ids is not None:
            con.unregister("ids")


def add_option_prints(con: duckdb.DuckDBPyConnection, prints: Prints) -> None:
    """The table `option_print` (options, fingerprint, layout_fingerprint): of every document's options in the ledger, what the
    present configuration makes of them."""
    con.execute("CREATE OR REPLACE TABLE option_print (options VARCHAR, fingerprint VARCHAR, layout_fingerprint VARCHAR)")
    found = con.execute("SELECT DISTINCT options FROM ledger WHERE kind = 'revision' AND options IS NOT NULL").fetchall()
    for (options,) in found:
        con.execute("INSERT INTO option_print VALUES (?, ?, ?)", [options, *prints(options)])


@dataclass(slots=True)
class Preview:
    """What was chosen, counted."""

    pages: Counter[str] = field(default_factory=Counter)  # by state
    codes: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    blocks: int = 0  # where blocks were chosen
    other: int = 0  # pages read with another configuration than the present one
    unopened: Counter[str] = field(default_factory=Counter)  # documents and objects without pages, by error code
    gone: int = 0  # documents that no object holds any more, as the ledger knows
    unknown: int = 0  # rows of the file of ids that name no live page
    whole: int = 0  # pages of chosen blocks that must be read whole


_COUNTED = """
SELECT count(DISTINCT doc_id)::BIGINT, coalesce(sum(len(blocks)), 0)::BIGINT,
       count(*) FILTER (fingerprint <> current), count(DISTINCT doc_id) FILTER (doc_id NOT IN (
         SELECT doc_id FROM source_latest WHERE presence = 'present' AND error_code IS NULL AND doc_id IS NOT NULL))
FROM chosen WHERE page_index IS NOT NULL
"""


def preview_of(output: Output, choice: Choice, prints: Prints, by_blocks: bool) -> Preview:
    """Counts the table `chosen`.

    Args:
        by_blocks: whether the present reader can read single blocks.
    """
    con = output.con
    ((documents, blocks, other, gone),) = con.execute(_COUNTED).fetchall()
    found = Preview(documents=documents, blocks=blocks, other=other, gone=gone, unknown=unknown_ids(output, choice))
    for column, counter, pages in (
        ("state", found.pages, True),
        ("error_code", found.codes, True),
        ("error_code", found.unopened, False),
    ):
        rows = con.execute(
            f"SELECT {column}, count(*) FROM chosen WHERE (page_index IS NOT NULL) = {pages} AND {column} IS NOT NULL GROUP BY 1"
        )
        counter.update(dict(rows.fetchall()))
    if blocks:
        output.install(con, "")
        same = """SELECT count(*) FROM chosen c JOIN pages p ON p.doc_id = c.doc_id AND p.page_index = c.page_index
                  LEFT JOIN (SELECT fingerprint, any_value(layout_fingerprint) AS layout_fingerprint FROM option_print
                             GROUP BY fingerprint) o ON o.fingerprint = c.current
                  WHERE c.blocks IS NOT NULL AND (p.regions IS NULL OR p.unwarped
                     OR p.layout_fingerprint IS DISTINCT FROM coalesce(o.layout_fingerprint, $1))"""
        ((found.whole,),) = con.execute(same, [prints("")[1]]).fetchall()
        if not by_blocks:
            found.whole = found.pages.total()
    return found


def unknown_ids(output: Output, choice: Choice) -> int:
    """Rows of the file of ids that name no live page."""
    if choice.ids is None:
        return 0
    output.con.register("ids", choice.ids)
    try:
        ((count,),) = output.con.execute(
            """SELECT count(*) FROM ids i ANTI JOIN live_page l
               ON l.doc_id = i.doc_id AND (i.page_index IS NULL OR i.page_index = l.page_index)"""
        ).fetchall()
    finally:
        output.con.unregister("ids")
    return int(count)
