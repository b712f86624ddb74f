"""A ledger of millions of pages and a source of a million objects, made as fast as Arrow can.

Invariant: the ledger is what the product would have written: its schema, its commits, its segments and checkpoints, by its
own code; only the records are made column by column instead of one by one. The source lists and never gives a byte.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.output import MARK
from pipelines.schema import FORMAT_VERSION, PAGES
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import ROW_GROUP_PAGES
from pipelines.store.records import RECORDS
from pipelines.store.segments import commit_key, encode, merge

_SPAN = 8
_FOLDER = 1000  # objects of one listed folder


@dataclass(frozen=True)
class Archive:
    """`documents` objects, numbered; `pages` of each."""

    documents: int
    pages: int

    def uri(self, number: int) -> str:
        return f"listed://archive/{number // _FOLDER:06d}/document-{number:09d}.pdf"

    def etag(self, number: int) -> str:
        return f"{number:032x}"


def doc_id(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8, "little")).hexdigest()


def write_ledger(
    output: str,
    archive: Archive,
    known: int,
    gone: int = 0,
    records_per_commit: int = 20_000,
    merge_every: int = 100,
    parts: bool = False,
) -> int:
    """A ledger in which the first `known` documents are read, and `gone` more that the archive no longer lists.

    Args:
        records_per_commit: at most; 20,000 are the committer's own limit.
        parts: write what the ledger names: a part for each commit, as large as compaction makes them, its pages without
            blocks. False: it names parts that are not there, and Markdown.

    Returns:
        The number of its commits.
    """
    store = ObjectStore(output)
    store.put(MARK, json.dumps({"format": FORMAT_VERSION, "lanes": 1}).encode())
    number = 0
    documents_per_commit = max(1, records_per_commit // (3 + -(-archive.pages // _SPAN)))
    for start, count in ((0, known), (archive.documents, gone)):
        for first in range(start, start + count, documents_per_commit):
            number += 1
            documents = range(first, min(start + count, first + documents_per_commit))
            rows = _records(archive, documents, number, _write_part(store, archive, documents) if parts else None)
            store.put_new(commit_key("ledger/0", number), encode(rows))
            merge(store, "ledger/0", number, merge_every)
    return number


def _write_part(store: ObjectStore, archive: Archive, documents: Sequence[int]) -> str:
    """The rows of these documents, as far as the ledger speaks of them; the part's key."""
    ids, count = [doc_id(document) for document in documents], len(documents) * archive.pages
    firsts = range(0, archive.pages, _SPAN)
    attempts = pa.array([_attempt(one, first) for one in ids for first in firsts])
    lengths = np.tile([min(_SPAN, archive.pages - first) for first in firsts], len(ids))
    columns = {
        "doc_id": pa.array(ids).take(pa.array(np.repeat(np.arange(len(ids)), archive.pages))),
        "page_index": pa.array(np.tile(np.arange(archive.pages, dtype=np.int32), len(ids))),
        "attempt": attempts.take(pa.array(np.repeat(np.arange(len(attempts)), lengths))),
        "state": _same("ok", count), "revision": _same(1, count, pa.int32()),
        "blocks": _same([], count, PAGES.field("blocks").type),
    }  # fmt: skip
    table = pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in PAGES], schema=PAGES)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_PAGES, write_page_checksum=True)
    key = f"pages/part-{hashlib.sha256(sink.getvalue()).hexdigest()}.parquet"
    store.put(key, sink.getvalue())
    return key


def _attempt(document: str, first: int) -> str:
    return f"{document[:12]}{first:04x}"


def _records(archive: Archive, documents: Sequence[int], number: int, part: str | None) -> pa.Table:
    """One commit's records: a source, a revision, the spans and the document record of each document."""
    count = len(documents)
    ids = [doc_id(document) for document in documents]
    parts = [part or f"pages/part-{hashlib.sha256(i[:3].encode()).hexdigest()}.parquet" for i in ids]
    markdown = pa.array([f"markdown/{i[:2]}/{i}/{i}.md" for i in ids]) if part is None else pa.nulls(count, pa.string())
    every = {"doc_id": pa.array(ids), "revision": _same(1, count, pa.int32()), "run_id": _same("synthetic", count)}
    source = _kind("source", count, {
        **every, "revision": pa.nulls(count, pa.int32()), "uri": pa.array([archive.uri(d) for d in documents]),
        "etag": pa.array([archive.etag(d) for d in documents]), "size": _same(1_000_000, count, pa.int64()),
        "presence": _same("present", count), "format": _same("pdf", count), "flags": _same([], count, pa.list_(pa.string())),
        "page_count": _same(archive.pages, count, pa.int32()),
    })  # fmt: skip
    revision = _kind("revision", count, {
        **every, "pages": _same(list(range(archive.pages)), count, pa.list_(pa.int32())), "fingerprint": _same("f" * 16, count),
    })  # fmt: skip
    spans = [_spans(every, count, list(range(first, min(archive.pages, first + _SPAN))), ids, parts)
             for first in range(0, archive.pages, _SPAN)]  # fmt: skip
    document = _kind("document", count, {
        **every, "page_count": _same(archive.pages, count, pa.int32()), "state": _same("ok", count),
        "ok": _same(archive.pages, count, pa.int32()), "blank": _same(0, count, pa.int32()),
        "degraded": _same(0, count, pa.int32()), "failed": _same(0, count, pa.int32()),
        "retryable": _same(0, count, pa.int32()), "markdown": markdown,
    })  # fmt: skip
    table = pa.concat_tables([source, revision, *spans, document])
    stamp = {
        "number": _same(number, len(table), pa.int64()), "row": pa.array(np.arange(len(table), dtype=np.int32)),
        "commit_id": _same(f"{number:032x}", len(table)), "claim": _same(1, len(table), pa.int64()),
        "at": _same(datetime(2026, 1, 1, tzinfo=UTC), len(table), pa.timestamp("us", tz="UTC")),
    }  # fmt: skip
    columns = [stamp.get(name, table.column(name) if name in table.column_names else None) for name in RECORDS.names]
    return pa.table(columns, schema=RECORDS)


def _spans(every: dict[str, pa.Array], count: int, pages: list[int], ids: list[str], parts: list[str]) -> pa.Table:
    return _kind("span", count, {
        **every, "pages": _same(pages, count, pa.list_(pa.int32())),
        "states": _same(["ok"] * len(pages), count, pa.list_(pa.string())),
        "codes": _same([""] * len(pages), count, pa.list_(pa.string())), "tries": _same(1, count, pa.int32()),
        "attempt": pa.array([_attempt(i, pages[0]) for i in ids]), "part": pa.array(parts),
    })  # fmt: skip


def _kind(kind: str, count: int, columns: dict[str, pa.Array]) -> pa.Table:
    given = columns | {"kind": _same(kind, count)}
    fields = [field for field in RECORDS if field.name not in ("number", "row", "commit_id", "claim", "at")]
    return pa.table([given.get(field.name, pa.nulls(count, field.type)) for field in fields],
                    schema=pa.schema([pa.field(field.name, field.type) for field in fields]))  # fmt: skip


def _same(value: object, count: int, kind: pa.DataType | None = None) -> pa.Array:
    """`count` times one value."""
    return pa.repeat(pa.scalar(value, kind), count)


class ListedFileSystem(fsspec.AbstractFileSystem):
    """A source that can be listed folder by folder, as an object store is, and whose objects cannot be read."""

    protocol = "listed"

    def __init__(self, documents: int, pages: int = 10, **options: Any) -> None:
        super().__init__(**options)
        self._archive = Archive(documents, pages)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:  # noqa: ARG002
        folder = self._strip_protocol(path).strip("/")
        if folder == "archive":
            folders = range(-(-self._archive.documents // _FOLDER))
            return [{"name": f"archive/{number:06d}", "size": 0, "type": "directory"} for number in folders]
        return list(self._files(folder))

    def info(self, path: str, **options: Any) -> dict[str, Any]:  # noqa: ARG002
        name = self._strip_protocol(path)
        return {"name": name, "size": 0, "type": "directory"}

    def _files(self, folder: str) -> Iterator[dict[str, Any]]:
        first = int(folder.rpartition("/")[2]) * _FOLDER
        for number in range(first, min(first + _FOLDER, self._archive.documents)):
            name = self._archive.uri(number).removeprefix("listed://")
            yield {"name": name, "size": 1_000_000, "type": "file", "ETag": self._archive.etag(number)}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:  # noqa: ARG002
        raise PermissionError(f"{path}: planning read a document's bytes")


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
