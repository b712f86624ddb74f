"""The ledger's records as one flat Arrow schema.

A commit is one Parquet file of these rows; a column that a kind does not use is null. Invariant: `(number, row)` orders
all records of a lane, and whatever the readers conclude follows from that order alone, never from `at`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

KINDS = ("claim", "release", "source", "revision", "span", "document", "moved", "run")

RECORDS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),  # of the commit, from 1
        pa.field("row", pa.int32(), nullable=False),  # within the commit, from 0
        pa.field("commit_id", pa.string(), nullable=False),  # random: tells our own commit from a foreign one
        pa.field("claim", pa.int64(), nullable=False),  # number of the claim under which it was written; 0: none (moved)
        pa.field("kind", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("run_id", pa.string()),
        # claim, release
        pa.field("host", pa.string()),
        pa.field("boot_id", pa.string()),
        pa.field("pid_namespace", pa.string()),
        pa.field("pid", pa.int64()),
        pa.field("process_start", pa.int64()),  # clock ticks after boot, /proc/PID/stat field 22
        # source
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),  # opaque; null on a local disk
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("ctime_ns", pa.int64()),
        pa.field("inode", pa.int64()),
        pa.field("presence", pa.string()),  # present | vanished
        # source, revision, span, document
        pa.field("doc_id", pa.string()),
        pa.field("format", pa.string()),  # source: pdf, tiff, png, jpeg, webp
        pa.field("page_count", pa.int32()),  # source, document: of the whole document
        pa.field("flags", pa.list_(pa.string())),  # source: what opening the document told
        pa.field("tries", pa.int32()),  # source, span, document: of a transient failure, over all runs; revision: counted anew
        pa.field("revision", pa.int32()),
        pa.field("pages", pa.list_(pa.int32())),  # revision, span: ascending page indices
        pa.field("blocks", pa.list_(pa.list_(pa.int32()))),  # revision: parallel to pages, of which only these; null: whole pages
        pa.field("options", pa.string()),  # revision: of its document alone, as JSON; null: none
        pa.field("fingerprint", pa.string()),  # revision, span: with which it is read, was read
        # span
        pa.field("states", pa.list_(pa.string())),  # parallel to pages
        pa.field("codes", pa.list_(pa.string())),  # parallel to pages; "" where there is no error
        pa.field("attempt", pa.string()),
        pa.field("part", pa.string()),
        # source, document
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        # document
        pa.field("state", pa.string()),  # ok | partial | failed | encrypted
        pa.field("ok", pa.int32()),
        pa.field("blank", pa.int32()),
        pa.field("degraded", pa.int32()),
        pa.field("failed", pa.int32()),
        pa.field("retryable", pa.int32()),  # what a later run tries again: pages (document), 1 or 0 (source)
        pa.field("markdown", pa.string()),  # key below OUTPUT
        # moved: rows of old_part are in new_part; null: nothing needs them any more, gc deleted them
        pa.field("old_part", pa.string()),
        pa.field("new_part", pa.string()),
        # run
        pa.field("summary", pa.string()),  # JSON
    ]
)

_STAMPED = ("number", "row", "commit_id", "claim", "at")  # filled in by the writer of the commit

Record = dict[str, Any]


def record(kind: str, **values: Any) -> Record:
    """One record before it is stamped with its commit.

    Raises:
        ValueError: for a kind or a column that the schema does not have.
    """
    unknown = [name for name in values if name not in RECORDS.names or name in _STAMPED]
    if kind not in KINDS or unknown:
        raise ValueError(f"not a ledger record: kind {kind!r}, unknown columns {unknown}")
    return {"kind": kind, **values}
