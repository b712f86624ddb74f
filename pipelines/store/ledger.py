"""The ledger: append-only commits, one object each, and the fence that lets one driver at a time write them.

Invariant: a commit's number is taken by creating its object, which succeeds once; whoever finds a foreign claim where its
own commit should have gone has lost the lane and writes nothing more. A commit whose put was answered or read back as
ours is there; a commit that was never acknowledged is there whole or not at all.
"""

from __future__ import annotations

import io
import secrets
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import DamagedOutput, Fenced, PagemillError, StoreUnavailable
from pipelines.lanes import Lane
from pipelines.observe.log import EventLog
from pipelines.store.claim import is_gone, this_driver
from pipelines.store.objects import ObjectStore
from pipelines.store.records import RECORDS, Record, record
from pipelines.store.segments import Segment, commit_key, encode, merge, newest_checkpoint

log = EventLog()

# all that the fence asks for: a segment of millions of records is opened in a fraction of the time that all columns take
_OF_CLAIMS = ["number", "kind", "claim", "at", "run_id", "host", "boot_id", "pid_namespace", "pid", "process_start"]


@dataclass(slots=True, frozen=True)
class LedgerFile:
    """Commits `first` to `last` as a Parquet file on this machine."""

    first: int
    last: int
    path: Path


class Ledger:
    """One lane of an output's ledger. `append` and `refresh` from one thread at a time.

    Args:
        scratch: folder for copies of a remote ledger's objects; default: a temporary one of this process.
    """

    def __init__(self, store: ObjectStore, lane: Lane | None = None, merge_every: int = 100, scratch: Path | None = None) -> None:
        self._store = store
        self.lane = lane or Lane()
        self._folder = self.lane.folder
        self._merge_every = merge_every
        self._scratch = scratch
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.files: list[LedgerFile] = []
        self._claims: list[tuple[int, Record]] = []  # claim and release records with their numbers, in order
        self._claim = 0  # number of our own claim; 0: we have none
        self._lost: Fenced | None = None
        self._stop_beat = threading.Event()

    @property
    def paths(self) -> list[Path]:
        """Where the files that are known are on this machine."""
        return [file.path for file in self.files]

    @property
    def next_number(self) -> int:
        return self.files[-1].last + 1 if self.files else 1

    # -- reading -------------------------------------------------------------------------------------------------------

    def refresh(self) -> list[LedgerFile]:
        """Reads what is new; all that is known is in `files`."""
        new: list[LedgerFile] = []
        if not self.files:
            new += [self._absorb(segment, None) for segment in newest_checkpoint(self._store, self._folder)]
        while True:
            try:
                data = self._store.get(commit_key(self._folder, self.next_number))
            except FileNotFoundError:
                return new
            new.append(self._absorb(Segment(0, self.next_number, self.next_number), data))

    def _absorb(self, segment: Segment, data: bytes | None) -> LedgerFile:
        key = segment.key(self._folder)
        path = self._store.local_path(key)
        if path is None:
            path = self._copy(key, data)
        try:
            claims = pq.read_table(path, columns=_OF_CLAIMS, filters=pc.field("kind").isin(["claim", "release"])).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedOutput(f"{key} is not a ledger file: {error}") from error
        file = LedgerFile(segment.first, segment.last, path)
        self.files.append(file)
        self._claims += [(row["number"], row) for row in claims]
        return file

    def _copy(self, key: str, data: bytes | None) -> Path:
        if self._scratch is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="pagemill-ledger-")
            self._scratch = Path(self._temporary.name)
        path = self._scratch / key.replace("/", "-")
        path.write_bytes(self._store.get(key) if data is None else data)
        return path

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> int:
        """Commits records under this driver's claim; their number.

        Raises:
            Fenced: another driver's claim is there; so does every later call.
            StoreUnavailable: the outcome is unknown; a later append finds out.
        """
        if self._lost is not None:
            raise self._lost
        if not self._claim:
            raise PagemillError("append without a claim")
        number = self._create(records, self._claim)
        self._merge(number)
        return number

    def amend(self, records: Sequence[Record]) -> int:
        """Commits records that are true whoever writes the lane (where a part moved to), without a claim; their number.

        A driver that finds such a commit where its own should have gone goes on with the next number.
        """
        commit_id = secrets.token_hex(16)
        while True:
            number = self.next_number
            data = encode(_stamped(records, number, commit_id, 0))
            ours = self._store.put_new(commit_key(self._folder, number), data)
            if not ours:
                data = self._store.get(commit_key(self._folder, number))
                ours = _commit_id(data) == commit_id
            self._absorb(Segment(0, number, number), data)
            if ours:
                self._merge(number)
                return number

    def check_claim(self) -> None:
        """
        Raises:
            Fenced: this driver's claim is not the newest any more.
        """
        for file in self.refresh():
            self._check_foreign(file.first)

    def _create(self, records: Sequence[Record], claim: int) -> int:
        """Creates the next commit, going past whatever else is found on the way; `claim` 0: it is its own claim."""
        commit_id = secrets.token_hex(16)
        while True:
            number = self.next_number
            data = encode(_stamped(records, number, commit_id, claim or number))
            if not self._store.put_new(commit_key(self._folder, number), data):
                there = self._store.get(commit_key(self._folder, number))
                if _commit_id(there) != commit_id:
                    self._absorb(Segment(0, number, number), there)
                    self._check_foreign(number)
                    continue
            self._absorb(Segment(0, number, number), data)
            return number

    def _check_foreign(self, number: int) -> None:
        """Somebody else's commit stands at `number`: whose claim is it under?"""
        holder = self._holder()
        if holder is not None and (self._claim == 0 or holder[0] != self._claim):
            if holder[0] != number and not self._claim:
                return  # data of a driver before us that we are about to supersede
            self._lost = Fenced(self._fenced_words(holder[1]))
            self._stop_beat.set()
            raise self._lost

    def _merge(self, number: int) -> None:
        try:
            merge(self._store, self._folder, number, self._merge_every)
        except (PagemillError, OSError, pa.ArrowInvalid) as error:
            log.warning("merge_failed", number=number, error=error)  # the commits themselves are there

    # -- the fence -----------------------------------------------------------------------------------------------------

    def claim(self, run_id: str, stale_after_s: float, beat_s: float, take_over: bool = False) -> None:
        """Makes this driver the one that writes the lane, and keeps a heartbeat from then on.

        Raises:
            Fenced: the driver before is alive, or another one was faster.
        """
        self.refresh()
        holder = self._holder()
        if holder is not None and not take_over and not is_gone(holder[1]):
            self._watch(holder[0], stale_after_s)
        self._claim = self._create([record("claim", run_id=run_id, **this_driver().columns())], 0)
        self._stop_beat.clear()
        self._beat(0)
        threading.Thread(target=self._beat_on, args=(beat_s,), name="heartbeat", daemon=True).start()

    def release(self) -> None:
        """Ends the claim, so that the next driver need not wait; silent when the lane was lost."""
        self._stop_beat.set()
        if self._claim and self._lost is None:
            self.append([record("release")])
        self._claim = 0

    def close(self) -> None:
        """Forgets copies of remote objects. Writes nothing."""
        self._stop_beat.set()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _holder(self) -> tuple[int, Record] | None:
        """The newest claim, unless its own release follows."""
        claims = [(number, row) for number, row in self._claims if row["kind"] == "claim"]
        if not claims:
            return None
        released = {row["claim"] for _, row in self._claims if row["kind"] == "release"}
        return None if claims[-1][0] in released else claims[-1]

    def _fenced_words(self, claim: Record) -> str:
        what = "this output" if self.lane.count == 1 else f"{self.lane} of this output"
        return (
            f"driver {claim['host']} pid {claim['pid']} (run {claim['run_id']}, since {claim['at']:%Y-%m-%d %H:%M:%S} UTC) "
            f"is writing {what}. Wait for it, or, if it is certainly dead: --take-over"
        )

    def _watch(self, number: int, stale_after_s: float) -> None:
        """Waits for a sign of life of the claim's driver; returns when there was none for `stale_after_s`."""
        beat = self._read_beat(number)
        until = time.monotonic() + stale_after_s
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, max(0.05, stale_after_s / 20)))
            if any(not _is_amendment(file) for file in self.refresh()) or self._read_beat(number) != beat:
                holder = self._holder()
                if holder is not None:
                    raise Fenced(self._fenced_words(holder[1]))
                return  # it released meanwhile

    def _read_beat(self, number: int) -> bytes | None:
        try:
            return self._store.get(f"{self._folder}/alive/{number:08d}")
        except FileNotFoundError:
            return None

    def _beat(self, count: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._store.put(f"{self._folder}/alive/{self._claim:08d}", f"{count} {now}".encode())

    def _beat_on(self, beat_s: float) -> None:
        count = 0
        while not self._stop_beat.wait(beat_s):
            count += 1
            try:
                self._beat(count)
            except StoreUnavailable as error:
                log.warning("beat_failed", count=count, error=error)  # the store may be back for the next one


def _stamped(records: Sequence[Record], number: int, commit_id: str, claim: int) -> pa.Table:
    now = datetime.now(UTC)
    stamp: dict[str, Any] = {"number": number, "commit_id": commit_id, "claim": claim, "at": now}
    return pa.Table.from_pylist([{**entry, **stamp, "row": row} for row, entry in enumerate(records)], schema=RECORDS)


def _is_amendment(file: LedgerFile) -> bool:
    """Whether a commit was made without a claim: it is no sign of life of the driver that has the lane."""
    return bool(pq.read_table(file.path, columns=["claim"]).column(0)[0].as_py() == 0)


def _commit_id(data: bytes) -> str | None:
    found = pq.read_table(io.BytesIO(data), columns=["commit_id"])
    return found.column(0)[0].as_py() if found.num_rows else None
