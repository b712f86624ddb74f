"""One document out of an output, with no more requests than its own parts need.

Invariant: shows live rows only, by the one rule for readers.
"""

from __future__ import annotations

import io
import os
from typing import Any
from urllib.parse import quote_from_bytes

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import ConfigError
from pipelines.store.objects import ObjectStore, is_utf8
from pipelines.store.publishing import HeldBack, held_back

_FIND = """
SELECT DISTINCT doc_id FROM (
  SELECT doc_id, uri FROM source_latest WHERE doc_id IS NOT NULL UNION ALL SELECT doc_id, '' FROM document_latest)
WHERE starts_with(doc_id, $1) OR ends_with(uri, $1) ORDER BY doc_id LIMIT $2
"""


def find_documents(con: duckdb.DuckDBPyConnection, name: str, most: int = 1_000_000) -> list[str]:
    """Ids of the documents that an id, a URI, the beginning of the one or the end of the other names."""
    if not is_utf8(name):
        name = quote_from_bytes(os.fsencode(name))
    return [str(row[0]) for row in con.execute(_FIND, [name, most]).fetchall()]


def find_document(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """
    Raises:
        ConfigError: none or several match, or it is held back.
    """
    doc_ids = find_documents(con, name, 3)
    if not doc_ids:
        raise nothing_named(con, name)
    if len(doc_ids) != 1:
        matches = "2 documents match" if len(doc_ids) == 2 else "several documents match"
        raise ConfigError(f"{name}: {matches}; give an id, a URI, or more of either")
    return doc_ids[0]


def nothing_named(con: duckdb.DuckDBPyConnection, name: str) -> ConfigError:
    """Why no document has this name."""
    held = held_back(con, [name])
    if held.documents:
        return ConfigError(f"{name}: nothing of it is published: {held.words()}")
    return ConfigError(f"{name}: no document matches; give an id, a URI, or the end of one")


def newer_held_back(con: duckdb.DuckDBPyConnection, name: str) -> HeldBack:
    """Of the document with this name a newer reading, or of its URIs a newer document."""
    uris = con.execute("SELECT uri FROM source_latest WHERE doc_id = ?", [doc_id := find_document(con, name)]).fetchall()
    return held_back(con, [doc_id, *(str(row[0]) for row in uris)])


def options_of(con: duckdb.DuckDBPyConnection, doc_id: str) -> str:
    """The options that a document has for itself, canonical; "" where it has none."""
    own = "SELECT options FROM revision_opened WHERE doc_id = ? AND options IS NOT NULL ORDER BY revision DESC LIMIT 1"
    found = con.execute(own, [doc_id]).fetchone()
    return str(found[0]) if found else ""


def document_markdown(con: duckdb.DuckDBPyConnection, store: ObjectStore, name: str, page: int | None) -> str:
    """The Markdown of a document, or of one of its pages.

    Args:
        con: with the ledger's views.
        name: its id or the beginning of that; a URI that holds it or the end of that.
        page: index from 0; None: the whole document, as finalized, or as far as it was read.

    Raises:
        ConfigError: none or several match, or there is no such page.
    """
    doc_id = find_document(con, name)
    done = con.execute("SELECT markdown, error_code, error_message FROM document_latest WHERE doc_id = ?", [doc_id]).fetchall()
    if page is None and done and done[0][0]:
        return store.get(done[0][0]).decode("utf-8")
    if done and not done[0][0]:
        raise ConfigError(f"{name} was not read: {done[0][1]}: {done[0][2]}")
    return _from_pages(con, store, doc_id, name, page)


def _from_pages(con: duckdb.DuckDBPyConnection, store: ObjectStore, doc_id: str, name: str, page: int | None) -> str:
    live = con.execute("SELECT page_index, attempt, part FROM live_page WHERE doc_id = ? ORDER BY 1", [doc_id]).fetchall()
    wanted = {(index, attempt): part for index, attempt, part in live if page is None or index == page}
    if not wanted:
        read = f"its pages are 1 to {live[-1][0] + 1}" if live else "none of its pages is read yet"
        raise ConfigError(f"{name}: no page {page + 1}; {read}" if page is not None else f"{name}: {read}")
    rows: dict[int, dict[str, Any]] = {}
    for part in sorted(set(wanted.values())):
        table = pq.read_table(io.BytesIO(store.get(part)), filters=pc.field("doc_id") == doc_id, columns=_COLUMNS)
        rows |= {row["page_index"]: row for row in table.to_pylist() if (row["page_index"], row["attempt"]) in wanted}
    return "\n\n".join(_page_text(row) for _, row in sorted(rows.items()))


_COLUMNS = ["doc_id", "page_index", "attempt", "state", "error_code", "error_message", "markdown"]


def _page_text(row: dict[str, Any]) -> str:
    if row["state"] == "failed":
        return f"*page {row['page_index'] + 1} was not read: {row['error_code']}: {row['error_message']}*"
    return str(row["markdown"]) or f"*page {row['page_index'] + 1} is {row['state']}*"
