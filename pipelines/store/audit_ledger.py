"""The audit of the ledger itself: every commit is there, and whatever stands for commits says what they say.

Invariant: the commits are believed, nothing else: a segment that readers take in their place is held against them record by
record, so that what is derived from it is derived from them. It costs a GET for every commit; a commit and a row group of a
segment are in memory at a time.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store.fetch import fetched
from pipelines.store.gaps import commits_there
from pipelines.store.ledger import Ledger, LedgerFile
from pipelines.store.objects import ObjectStore
from pipelines.store.records import RECORDS
from pipelines.store.segments import commit_key

_MOST_NAMED = 10  # commits of one kind of damage that are named one by one
_BATCH_RECORDS = 50_000

Problem = Callable[[str], None]


def audit_ledgers(store: ObjectStore, ledgers: Sequence[Ledger], problem: Problem) -> None:
    """
    Args:
        ledgers: of all lanes, refreshed: what was read from them is what is held against the commits.
    """
    found = commits_there(store)
    for lane in sorted(set(found) - {ledger.lane.number for ledger in ledgers}):
        problem(f"ledger/{lane}: holds commits, but pagemill.json says that there are {len(ledgers)} lanes: nobody reads it")
    for ledger in ledgers:
        _numbers(store, ledger, found.get(ledger.lane.number, array("q")), problem)
        _files(store, ledger, problem)


def _numbers(store: ObjectStore, ledger: Ledger, numbers: array[int], problem: Problem) -> None:
    """A commit is never deleted: who reads on until one is absent would end at the gap."""
    last = max(max(numbers, default=0), ledger.next_number - 1)
    absent = np.setdiff1d(np.arange(1, last + 1), np.frombuffer(numbers, dtype=np.int64))
    named = 0
    for number in absent.tolist():
        key = commit_key(ledger.lane.folder, number)
        if store.exists(key):  # it came while the store listed
            continue
        named += 1
        if named > _MOST_NAMED:
            problem(f"{ledger.lane.folder}: of {len(absent)} commits there is no object, though later ones are there")
            return
        problem(f"{key}: missing, though later commits are there")


def _files(store: ObjectStore, ledger: Ledger, problem: Problem) -> None:
    """What readers take for these commits is what was committed."""
    for file in ledger.files:
        _file(store, ledger.lane.folder, file, problem)


def _file(store: ObjectStore, folder: str, file: LedgerFile, problem: Problem) -> None:
    wrong = 0
    said = _Records(file.path)
    numbers = range(file.first, file.last + 1)
    for number, data in fetched(store, numbers, lambda number: commit_key(folder, number)):
        try:
            read = said.until(number)
        except (pa.ArrowException, OSError) as error:
            problem(f"{folder}: the segment of commits {file.first} to {file.last} cannot be read at {number}: {error}")
            return
        if data is None:
            continue  # `_numbers` said so
        commit = _commit(folder, number, data, problem)
        if commit is not None and not read.equals(commit):
            wrong += 1
            if wrong <= _MOST_NAMED:
                problem(f"{folder}: the segment of commits {file.first} to {file.last} does not say what commit {number} says")
    if not wrong and said.rest():
        problem(f"{folder}: the segment of commits {file.first} to {file.last} holds records of others")


def _commit(folder: str, number: int, data: bytes, problem: Problem) -> pa.Table | None:
    """A commit's records; None, and a problem, when they are not what was written under this number."""
    key = commit_key(folder, number)
    try:
        table = _as_now(pq.read_table(io.BytesIO(data), page_checksum_verification=True))
    except (pa.ArrowException, OSError) as error:
        problem(f"{key}: not readable: {error}")
        return None
    rows = np.arange(len(table), dtype=np.int32)
    if not (table.column("number").to_numpy() == number).all() or not np.array_equal(table.column("row").to_numpy(), rows):
        problem(f"{key}: its records are not those of commit {number}, all of them and in order")
        return None
    return table


class _Records:
    """A file of the ledger as a stream of records, taken commit by commit."""

    def __init__(self, path: Path) -> None:
        self._batches = self._read(path)
        self._held = RECORDS.empty_table()

    def until(self, number: int) -> pa.Table:
        """The next records, to the last of this commit."""
        taken = [self._take(number)]
        while not len(self._held) and self._more():
            taken.append(self._take(number))
        return pa.concat_tables(taken)

    def rest(self) -> bool:
        """Whether there are records that nobody took."""
        return len(self._held) > 0 or (self._more() and len(self._held) > 0)

    def _take(self, number: int) -> pa.Table:
        end = int(np.searchsorted(self._held.column("number").to_numpy(), number, "right"))
        taken, self._held = self._held.slice(0, end), self._held.slice(end)
        return taken

    def _more(self) -> bool:
        batch = next(self._batches, None)
        self._held = RECORDS.empty_table() if batch is None else batch
        return batch is not None

    def _read(self, path: Path) -> Iterator[pa.Table]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH_RECORDS):
                yield _as_now(pa.Table.from_batches([batch]))


def _as_now(table: pa.Table) -> pa.Table:
    """Records of an older minor version with the columns of this one.

    Raises:
        pa.ArrowException
    """
    columns: dict[str, Any] = {name: table.column(name) for name in table.column_names}
    return pa.table([columns.get(field.name, pa.nulls(len(table), field.type)) for field in RECORDS],
                    names=RECORDS.names).cast(RECORDS)  # fmt: skip
