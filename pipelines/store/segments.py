"""Segments and checkpoints: many commits in few objects, so that opening a ledger of millions reads a handful.

Invariant: both are functions of the commits alone and created if absent, so one that a dying or fenced driver wrote is
either right or not there. Commits are never deleted: a segment that is missing or damaged costs time, nothing else.

    segments/1/00000001-00000100.parquet    merges 100 commits
    segments/2/00000001-00010000.parquet    merges 100 segments of level 1
    checkpoints/00000300.json               names the segments that hold commits 1 to 300
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
    due, size, level = [], group, 1
    while number % size == 0:
        due.append(Segment(level, number - size + 1, number))
        size, level = size * group, level + 1
    return due


def covering(last: int, group: int) -> list[Segment]:
    """The fewest segments that hold commits 1 to `last`, which is a multiple of `group`, in order."""
    size, level = group, 1
    while size * group <= last:
        size, level = size * group, level + 1
    cover, at = [], 0
    while size >= group:
        while at + size <= last:
            cover.append(Segment(level, at + 1, at + size))
            at += size
        size, level = size // group, level - 1
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


def _build(store: ObjectStore, folder: str, segment: Segment, group: int) -> pa.Table:
    """Makes a segment from those of the level below, and these first where they are missing."""
    size = (segment.last - segment.first + 1) // group
    tables = []
    for first in range(segment.first, segment.last + 1, size):
        part = Segment(segment.level - 1, first, first + size - 1)
        try:
            tables.append(pq.read_table(io.BytesIO(store.get(part.key(folder))), schema=RECORDS))
        except FileNotFoundError:
            if part.level == 0:
                raise
            tables.append(_build(store, folder, part, group))
    table = pa.concat_tables(tables)
    store.put_new(segment.key(folder), encode(table))
    return table


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
        if segments and all(store.exists(segment.key(folder)) for segment in segments):
            return segments
    return []
