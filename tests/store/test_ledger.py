"""The ledger's protocol: one winner a number, a fence that holds, and every step interrupted."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import Fenced, StoreUnavailable
from pipelines.store.claim import this_driver
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.records import record
from pipelines.store.segments import Segment, covering, due_segments
from tests.s3server import S3

Roots = Callable[[], tuple[str, dict[str, object]]]


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, object]]:
    if request.param == "disk":
        return str(tmp_path / "out"), {}
    s3: S3 = request.getfixturevalue("s3")
    return s3.bucket() + "/out", s3.options()


def note(text: str) -> dict[str, object]:
    return record("run", summary=text)


def content(store: ObjectStore, merge_every: int = 3) -> list[tuple[int, int, str | None]]:
    """(number, row, summary) of every record, read by a ledger that has seen nothing before."""
    ledger = Ledger(store, merge_every=merge_every)
    ledger.refresh()
    rows = [row for file in ledger.files for row in pq.read_table(file.path).to_pylist()]
    ledger.close()
    return [(row["number"], row["row"], row["summary"]) for row in rows if row["kind"] == "run"]


def claimed(store: ObjectStore, merge_every: int = 3, **options: object) -> Ledger:
    ledger = Ledger(store, merge_every=merge_every)
    ledger.claim("run", **({"stale_after_s": 0.5, "beat_s": 0.1} | options))  # type: ignore[arg-type]
    return ledger


def race(store_of: Callable[[], ObjectStore], rounds: int, writers: int = 4) -> None:
    stores = [store_of() for _ in range(writers)]
    for number in range(rounds):
        wins: list[int] = []
        gate = threading.Barrier(writers)

        def attempt(writer: int, key: str, gate: threading.Barrier = gate, wins: list[int] = wins) -> None:
            mine = f"writer {writer}".encode()
            gate.wait()
            # as the ledger does: a refusal after a lost answer may be of our own object, so it is read back
            if stores[writer].put_new(key, mine) or stores[writer].get(key) == mine:
                wins.append(writer)

        threads = [threading.Thread(target=attempt, args=(w, f"ledger/0/{number:08d}")) for w in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert stores[0].get(f"ledger/0/{number:08d}") == f"writer {wins[0]}".encode()


def test_a_thousand_rounds_have_one_winner_each_on_disk(tmp_path: Path) -> None:
    race(lambda: ObjectStore(str(tmp_path)), 1000)


def test_rounds_have_one_winner_each_on_s3(s3: S3) -> None:
    bucket = s3.bucket()
    race(lambda: ObjectStore(bucket, s3.options()), 60)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_thousand_rounds_have_one_winner_each_on_s3(s3: S3) -> None:
    bucket = s3.bucket()
    race(lambda: ObjectStore(bucket, s3.options()), 1000)


def test_what_was_appended_is_read_back_merged_or_not(root: tuple[str, dict[str, object]]) -> None:
    store = ObjectStore(*root)
    ledger = claimed(store)
    for number in range(11):
        ledger.append([note(f"{number}.{row}") for row in range(2)])
    ledger.release()
    merged = content(store)
    assert [text for _, _, text in merged] == [f"{number}.{row}" for number in range(11) for row in range(2)]
    for key in list(store.list("ledger/0/checkpoints")):
        store.delete(key)
    assert content(store) == merged


def test_a_lost_answer_does_not_fence_its_own_driver(s3: S3) -> None:
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True))
    ledger = claimed(store)
    s3.fault("lost_answer", "PUT", "ledger/0/0000000", times=3)
    for number in range(4):
        ledger.append([note(str(number))])
    ledger.release()
    assert [text for _, _, text in content(store)] == ["0", "1", "2", "3"]


def test_a_conflict_with_a_create_that_came_to_nothing_is_no_foreign_commit(s3: S3) -> None:
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True))
    ledger = claimed(store, beat_s=60)
    s3.fault("conflict", "PUT", "ledger/0/0000000", times=2)
    ledger.append([note("mine")])
    assert not [rule for rule in s3.faults.rules if rule["times"]]
    assert [text for _, _, text in content(store)] == ["mine"]


def test_slow_downs_and_resets_are_ridden_out_and_bounded(s3: S3) -> None:
    store = ObjectStore(s3.bucket() + "/out", s3.options(faulty=True), retries=3)
    ledger = claimed(store, beat_s=60)
    s3.fault("slowdown", "PUT", "ledger", times=2)
    s3.fault("reset", "PUT", "ledger", times=1)
    ledger.append([note("through")])
    assert [text for _, _, text in content(store)] == ["through"]
    s3.fault("slowdown", "PUT", "ledger", times=1000)
    before = len(s3.faults.seen)
    with pytest.raises(StoreUnavailable):
        ledger.append([note("never")])
    assert len(s3.faults.seen) - before == 4


def test_a_stale_driver_that_wakes_up_is_fenced(root: tuple[str, dict[str, object]]) -> None:
    store = ObjectStore(*root)
    sleeper = claimed(store)
    sleeper._stop_beat.set()  # it sleeps: no heartbeat any more
    successor = claimed(store, take_over=True)
    successor.append([note("successor")])
    with pytest.raises(Fenced):
        sleeper.append([note("too late")])
    with pytest.raises(Fenced):
        sleeper.append([note("still too late")])
    assert [text for _, _, text in content(store)] == ["successor"]


def foreign(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A claim whose process this machine cannot look up."""
    import pipelines.store.ledger as module

    me = this_driver()
    with monkeypatch.context() as patch:
        other = type(me)("elsewhere", "another-boot", me.pid_namespace, 1, 1)
        patch.setattr(module, "this_driver", lambda: other)
        return claimed(store)


def test_a_living_foreign_driver_is_left_alone(root: tuple[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(*root)
    living = foreign(store, monkeypatch)
    with pytest.raises(Fenced, match="elsewhere"):
        claimed(store, stale_after_s=3)
    living.append([note("undisturbed")])
    living.release()
    claimed(store, stale_after_s=3).release()


def test_a_silent_foreign_driver_is_taken_over(root: tuple[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(*root)
    foreign(store, monkeypatch)._stop_beat.set()
    claimed(store).release()


def test_a_killed_driver_is_taken_over_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pipelines.store.ledger import Ledger; from pipelines.store.objects import ObjectStore;"
        "l = Ledger(ObjectStore(sys.argv[1])); l.claim('dead', 60, 10); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    claimed(ObjectStore(str(tmp_path)), stale_after_s=3600).release()  # would wait an hour if it had to watch


class Cut(Exception):
    """The process ended here."""


class CutStore(ObjectStore):
    """Ends at the `at`-th write, before or after it takes effect."""

    def __init__(self, root: str, at: int, after: bool) -> None:
        super().__init__(root)
        self.at, self.after, self.writes = at, after, 0

    def _step(self, write: Callable[[], object]) -> object:
        self.writes += 1
        if self.writes > self.at:
            raise Cut
        if self.writes == self.at and not self.after:
            raise Cut
        result = write()
        if self.writes == self.at:
            raise Cut
        return result

    def put(self, key: str, data: bytes) -> None:
        if "/alive/" in key:
            return super().put(key, data)
        self._step(lambda: super(CutStore, self).put(key, data))
        return None

    def put_new(self, key: str, data: bytes) -> bool:
        return bool(self._step(lambda: super(CutStore, self).put_new(key, data)))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_every_step_of_commit_merge_and_checkpoint_interrupted(tmp_path: Path, after: bool) -> None:
    """Ten commits with merges at every second: whatever write is the last, nothing acknowledged is lost or doubled."""
    at, finished = 0, False
    while not finished:
        at += 1
        root = str(tmp_path / str(at))
        acknowledged: list[str] = []
        ledger = Ledger(CutStore(root, at, after), merge_every=2)
        try:
            ledger.claim("first", 60, 60)
            for number in range(10):
                ledger.append([note(f"first-{number}")])
                acknowledged.append(f"first-{number}")
            finished = True
        except Cut:
            pass
        ledger._stop_beat.set()
        store = ObjectStore(root)
        found = [str(text) for _, _, text in content(store, 2)]
        maybe = [*acknowledged, f"first-{len(acknowledged)}"]
        assert found in (acknowledged, maybe)
        successor = claimed(store, 2, take_over=True)
        for number in range(5):
            successor.append([note(f"second-{number}")])
        successor.release()
        assert [text for _, _, text in content(store, 2)] == [*found, *[f"second-{number}" for number in range(5)]]
        assert len({number for number, _, _ in content(store, 2)}) == len(found) + 5
    assert at > 20


@pytest.mark.parametrize("last", [3, 24, 27, 81, 90])
def test_segments_end_at_the_second_level(last: int) -> None:
    """A third would hold a million commits: more than a driver at work has the memory and the time to merge."""
    cover = covering(last, 3)
    assert [number for segment in cover for number in range(segment.first, segment.last + 1)] == list(range(1, last + 1))
    assert [segment.level for segment in cover] == [2] * (last // 9) + [1] * (last % 9 // 3)
    assert due_segments(last, 3) == [segment for segment in (Segment(1, last - 2, last), Segment(2, last - 8, last))
                                     if last % (3**segment.level) == 0]  # fmt: skip


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    ledger = claimed(store)
    for number in range(10):
        ledger.append([note(str(number))])
    ledger.release()
    before = content(store)
    newest = max(store.list("ledger/0/checkpoints"))
    store.put(newest, b"{ half a checkpoi")
    assert content(store) == before
    store.put(max(store.list("ledger/0/checkpoints")), b'{"last": 99, "segments": [[1, 1, 3], [1, 4, 6], [1, 97, 99]]}')
    assert content(store) == before
