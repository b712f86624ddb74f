"""Documents of an output one after another, with all their live pages: what every export goes through.

Invariant: one document in memory at a time; a folder's name cannot leave its place, and no two documents share one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipelines.store.one_document import find_documents, nothing_named
from pipelines.store.reading import Output

_ROWS = 64  # pages a batch: a page's row has 10 kB, some have megabytes
_UNSAFE = re.compile(r"[^\w.()\[\] +,=@-]|^\.+")
_LONGEST_NAME = 80  # characters; a file system takes 255 bytes


@dataclass(slots=True, frozen=True)
class Exported:
    """A document to export: its live pages in order, as rows of `PAGES`."""

    doc_id: str
    uri: str
    format: str
    page_count: int
    pages: list[dict[str, Any]]

    @property
    def stem(self) -> str:
        """Its file's name without what stands behind the last dot, without characters that a file system may refuse."""
        name = self.uri.rstrip("/").rpartition("/")[2]
        return _UNSAFE.sub("_", name.rpartition(".")[0] or name)[:_LONGEST_NAME].strip() or self.doc_id[:12]

    @property
    def folder(self) -> str:
        return f"{self.stem}-{self.doc_id[:12]}"


def documents(output: Output, names: Sequence[str] = (), columns: Sequence[str] = ()) -> Iterator[Exported]:
    """
    Args:
        names: ids or their beginnings, URIs or their ends; none: all documents.
        columns: of the pages besides doc_id, page_index, state; none: all.

    Raises:
        ConfigError: a name that no document has.
    """
    wanted = [doc_id for name in names for doc_id in _named(output, name)]
    known = _sources(output)
    some = ", ".join(dict.fromkeys(("doc_id", "page_index", "state", *columns))) if columns else "*"
    where = f"WHERE doc_id IN ({', '.join('?' * len(wanted))})" if wanted else ""
    cursor = output.con.cursor()  # the output's own connection stays free while this result is read
    found = cursor.sql(f"SELECT {some} FROM pages {where} ORDER BY doc_id, page_index", params=wanted)
    rows = (row for batch in found.to_arrow_reader(_ROWS) for row in batch.to_pylist())
    for doc_id, group in groupby(rows, key=lambda row: row["doc_id"]):
        uri, form, count = known.get(doc_id, (doc_id, "", None))
        pages = list(group)
        yield Exported(doc_id, uri, form or "", count or len(pages), pages)


def _sources(output: Output) -> dict[str, tuple[str, str, int]]:
    rows = output.con.execute(
        """SELECT doc_id, min(uri), any_value(format), any_value(page_count) FROM source_latest
           WHERE doc_id IS NOT NULL GROUP BY 1"""
    ).fetchall()
    return {doc_id: (uri, form, count) for doc_id, uri, form, count in rows}


def _named(output: Output, name: str) -> list[str]:
    found = find_documents(output.con, name)
    if not found:
        raise nothing_named(output.con, name)
    return found
