"""Segments and checkpoints: many commits in few objects, so that opening a ledger of millions reads a handful.

Invariant: both are functions of the commits alone and created if absent, so one that a dying or fenced driver wrote is
either right or not there. Commits are never deleted: a segment that is missing or damaged costs time, nothing else.

    segments/1/00000001-00000100.parquet    merges 100 commits
    segments/2/00000001-00010000.parquet    merges 100 segments of level 1
    checkpoints/00000300.json               names the segments that hold commits 1 to 300

There is no third level: a million commits, eleven days of one a second, are 100 segments of the second to open, and merging
these would take gigabytes and minutes of a driver that is at work.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store.objects import ObjectStore
from pipelines.store.records import RECORDS

_LEVELS = 2
_ROW_GROUP = 100_000  # records: some 60 MiB as they are in memory; DuckDB reads a ledger a row group at a time, too


@dataclass(slots=True, frozen=True)
class Segment:
    """An object of the ledger that holds commits `first` to `last`, both inclusive; level 0 is a commit itself."""

    level: int
    first: int
    last: int

    def key(self, folder: str) -> str:
        if self.level == 0:
            return commit_key(folder, self.first)
        return f"{folder}/segments/{self.level}/{self.first:08d}-{self.last:08d}.parquet"


def commit_key(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.parquet"


def encode(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table.cast(RECORDS), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def due_segments(number: int, group: int) -> list[Segment]:
    """Segments that the commit `number` completes, lowest level first."""
    sizes = [(level, group**level) for level in range(1, _LEVELS + 1)]
    return [Segment(level, number - size + 1, number) for level, size in sizes if number % size == 0]


def covering(last: int, group: int) -> list[Segment]:
    """The fewest segments that hold commits 1 to `last`, which is a multiple of `group`, in order."""
    cover, at = list[Segment](), 0
    for level in range(_LEVELS, 0, -1):
        size = group**level
        while at + size <= last:
            cover.append(Segment(level, at + 1, at + size))
            at += size
    return cover


def merge(store: ObjectStore, folder: str, number: int, group: int) -> None:
    """Writes what the commit `number` completes: segments level by level, then the checkpoint that names them."""
    due = due_segments(number, group)
    for segment in due:
        _build(store, folder, segment, group)
    if not due:
        return
    cover = covering(number, group)
    if number > group and not store.exists(_checkpoint_key(folder, number - group)):
        for segment in cover:  # an earlier merge was cut off: what it left out is made now
            if not store.exists(segment.key(folder)):
                _build(store, folder, segment, group)
    named = [[segment.level, segment.first, segment.last] for segment in cover]
    data = json.dumps({"last": number, "segments": named}, sort_keys=True).encode()
    store.put_new(_checkpoint_key(folder, number), data)


def _build(store: ObjectStore, folder: str, segment: Segment, group: int) -> bytes:
    """Makes a segment from those of the level below, and these first where they are missing; holds few records at a time."""
    size = (segment.last - segment.first + 1) // group
    sink, held, rows = io.BytesIO(), list[pa.Table](), 0
    with pq.ParquetWriter(sink, RECORDS, compression="zstd", write_page_checksum=True) as writer:
        for first in range(segment.first, segment.last + 1, size):
            part = Segment(segment.level - 1, first, first + size - 1)
            try:
                data = store.get(part.key(folder))
            except FileNotFoundError:
                if part.level == 0:
                    raise
                data = _build(store, folder, part, group)
            held.append(pq.read_table(io.BytesIO(data), schema=RECORDS))
            rows += len(held[-1])
            if rows >= _ROW_GROUP or part.last == segment.last:
                writer.write_table(pa.concat_tables(held).cast(RECORDS))
                held, rows = [], 0
    store.put_new(segment.key(folder), sink.getvalue())
    return sink.getvalue()


def _checkpoint_key(folder: str, number: int) -> str:
    return f"{folder}/checkpoints/{number:08d}.json"


def newest_checkpoint(store: ObjectStore, folder: str) -> Sequence[Segment]:
    """The segments of the newest checkpoint that opens, or none; one LIST, uncached."""
    names = sorted((key for key in store.list(f"{folder}/checkpoints") if key.endswith(".json")), reverse=True)
    for key in names:
        try:
            found = json.loads(store.get(key))
            segments = [Segment(*entry) for entry in found["segments"]]
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            continue  # a damaged one: an older checkpoint and more commits say the same
        if _follow(segments) and all(store.exists(segment.key(folder)) for segment in segments):
            return segments
    return []


def _follow(segments: Sequence[Segment]) -> bool:
    """Whether they are segments that hold each commit from the first on once: a gap would hide records from every reader."""
    if not segments or not all(isinstance(number, int) for segment in segments for number in (segment.first, segment.last)):
        return False
    following = 1
    for segment in segments:
        if segment.first != following or segment.last < following or segment.level not in range(1, _LEVELS + 1):
            return False
        following = segment.last + 1
    return True
