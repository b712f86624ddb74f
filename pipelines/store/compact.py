"""Compaction: many small parts become few large ones, while readers read and drivers write.

Invariant: a part is never changed and never deleted here. A new part holds every row of the old ones; it is stored before
the records that point to it are appended, all of them in one commit; so at any instant each record resolves to a part that
holds its rows. It needs no claim: where a page's row lies is true whoever writes the lane.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DamagedOutput
from pipelines.schema import PAGES
from pipelines.store.fetch import fetched
from pipelines.store.inventory import Inventory, load
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import ROW_GROUP_PAGES
from pipelines.store.records import record
from pipelines.store.state import LedgerState

# small parts that a record names, where they lie now, with the names that lead to each, in the order of the ledger. Only a part
# that compaction made has other names: a list for each of ten million parts would not fit into DuckDB's memory
_SMALL = """
WITH named AS (SELECT part, min(number * 1000000 + "row") AS position FROM ledger WHERE kind = 'span' GROUP BY part)
SELECT part, size, names FROM (
  SELECT n.part, f.size, [n.part] AS names, n.position FROM named n
  JOIN found f ON f.key = n.part ANTI JOIN part_moved m ON m.old_part = n.part WHERE f.size < $1
  UNION ALL
  SELECT m.new_part AS part, any_value(f.size) AS size, list(n.part) AS names, min(n.position) AS position FROM named n
  JOIN part_moved m ON m.old_part = n.part JOIN found f ON f.key = m.new_part WHERE f.size < $1 GROUP BY m.new_part) s
ANTI JOIN part_gone g ON g.part = s.part ORDER BY position
"""


@dataclass(slots=True, frozen=True)
class Small:
    """A part worth merging."""

    key: str
    size: int
    names: tuple[str, ...]  # by which span records know it


@dataclass(slots=True)
class Compacted:
    """What was done, in one lane or in several together."""

    parts: int = 0  # that were merged
    files: int = 0  # that they became
    size: int = 0  # bytes of these
    left: int = 0  # small parts that together do not fill a file yet
    foreign: list[str] = field(default_factory=list)  # with columns that this version does not know: left alone

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(*(getattr(self, name) + getattr(other, name) for name in Compacted.__slots__))


class Compactor:
    """
    Args:
        least: bytes; smaller parts are merged until a file has at least so many, hence fewer than twice as many.
    """

    def __init__(self, store: ObjectStore, ledger: Ledger, least: int) -> None:
        self._store = store
        self._ledger = ledger
        self._least = least

    def groups(self, result: Compacted) -> Iterator[list[Small]]:
        """Small parts that together fill a file, in the order in which they were committed."""
        group, held = list[Small](), 0
        with tempfile.TemporaryDirectory(prefix="pagemill-compact-") as scratch:
            state = LedgerState(self._ledger.paths, Path(scratch))
            load(state.con, Inventory(self._store).below("pages"))
            found = state.con.execute(_SMALL, [self._least])
            while some := found.fetchmany(1000):
                for key, size, names in some:
                    group.append(Small(key, size, tuple(names)))
                    held += size
                    if held >= self._least:
                        yield group
                        group, held = [], 0
            state.close()
        result.left = len(group)

    def compact(self) -> Compacted:
        """
        Raises:
            DamagedOutput: an old part does not hold what its name says; nothing points to anything new.
            StoreUnavailable: what was committed stays.
        """
        self._ledger.refresh()
        result = Compacted()
        for group in self.groups(result):
            merged = self._merge(group, result)
            if merged is None:
                continue
            key, size, parts = merged
            self._ledger.amend([record("moved", old_part=name, new_part=key) for part in parts for name in part.names])
            result.parts, result.files, result.size = result.parts + len(parts), result.files + 1, result.size + size
        return result

    def _merge(self, group: list[Small], result: Compacted) -> tuple[str, int, list[Small]] | None:
        """Stores one new part; its key, its bytes, and what is in it."""
        with tempfile.TemporaryFile(prefix="pagemill-compact-") as file:
            # the nonce makes the name new, always: a name that gc may just be deleting is never given again
            schema = PAGES.with_metadata({"pagemill_compaction": secrets.token_hex(16)})
            merged: list[Small] = []
            with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for table in _row_groups(self._tables(group, merged, result)):
                    writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=ROW_GROUP_PAGES)
            if len(merged) < 2:
                return None
            file.seek(0)
            data = file.read()
        key = f"pages/part-{hashlib.sha256(data).hexdigest()}.parquet"
        self._store.put(key, data)
        return key, len(data), merged

    def _tables(self, group: list[Small], merged: list[Small], result: Compacted) -> Iterator[pa.Table]:
        for part, data in fetched(self._store, group, lambda part: part.key, lambda part: part.size):
            if data is None:
                continue  # gc was faster; or the audit's business
            if hashlib.sha256(data).hexdigest() not in part.key:
                raise DamagedOutput(f"{part.key}: its bytes do not hash to its name; see pagemill audit")
            table = pq.read_table(io.BytesIO(data))
            try:
                cast = _current(table)
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, KeyError):
                result.foreign.append(part.key)
                continue
            merged.append(part)
            yield cast


def _current(table: pa.Table) -> pa.Table:
    """A table of an older minor version with the columns of this one.

    Raises:
        KeyError: it has a column that this version does not know; pa.ArrowInvalid and others: or of another type.
    """
    unknown = set(table.column_names) - set(PAGES.names)
    if unknown:
        raise KeyError(unknown)
    for column in PAGES:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(PAGES.names).cast(PAGES)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables large enough to be row groups of their own."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROW_GROUP_PAGES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
