"""P2 with clocks that are wrong: nothing that a ledger decides rests on the time of day that a driver believes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

import pagemill
import pipelines.store.ledger
from pipelines.errors import ExitCode, Fenced
from pipelines.store.audit import audit
from pipelines.store.garbage import Collector
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import comparable
from tests.builders import archive
from tests.conftest import inline
from tests.source.test_changes import interrupted
from tests.store.test_ledger import claimed, content, foreign, note

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets this process's clock so many hours ahead; what measures durations is left alone, as a wrong clock leaves it."""
    real, real_gmtime, ahead = time.time, time.gmtime, [0.0]

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=ahead[0])

    def gmtime(seconds: float | None = None) -> time.struct_time:
        return real_gmtime(time.time() if seconds is None else seconds)

    def set_to(hours: float) -> None:
        ahead[0] = hours
        monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
        monkeypatch.setattr(time, "gmtime", gmtime)
        monkeypatch.setattr(pipelines.store.ledger, "datetime", Wrong)

    return set_to


def test_runs_on_machines_hours_apart_end_like_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock
) -> None:
    """Begun five hours ahead, gone on with five hours behind: its newest run is the one with the oldest name and time."""
    source, output = archive(tmp_path / "in", {"a": 9, "b": 1}), tmp_path / "out"
    assert inline(source, tmp_path / "whole").exit_code == ExitCode.OK
    for hours, pages in ((5, 2), (-5, 4)):
        set_clock(hours)
        interrupted(source, output, monkeypatch, pages)
    set_clock(-29)
    assert inline(source, output).exit_code == ExitCode.OK
    read = [comparable(pagemill.read(str(tmp_path / name), "pages")) for name in ("whole", "out")]
    assert read[0].equals(read[1])
    assert audit(str(output), [str(path) for path in source.iterdir()]).ok
    assert inline(source, output).summary.status == "nothing_to_do"


@pytest.mark.parametrize("hours", [-30, 30])
def test_a_driver_is_alive_while_its_heart_beats_whatever_its_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock, hours: float
) -> None:
    store = ObjectStore(str(tmp_path))
    set_clock(hours)
    living = foreign(store, monkeypatch)
    set_clock(0)
    with pytest.raises(Fenced, match="elsewhere"):
        claimed(store, stale_after_s=3)
    living.append([note("undisturbed")])
    living._stop_beat.set()  # it dies: no beat any more, and the claim looks young, or hours old
    successor = claimed(store, stale_after_s=1)
    successor.append([note("after it")])
    successor.release()
    assert [text for _, _, text in content(store)] == ["undisturbed", "after it"]


def test_nothing_is_garbage_because_a_clock_is_ahead(tmp_path: Path, set_clock: SetClock) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    assert inline(source, output).exit_code == ExitCode.OK
    store = ObjectStore(str(output))
    store.put(f"pages/part-{'0' * 64}.parquet", b"what a killed worker left a moment ago")
    ledger = claimed(store)
    set_clock(24 * 30)
    assert Collector(store, [ledger], older_than_s=86_400, keep_revisions=None).find() == []
    assert len(Collector(store, [ledger], older_than_s=-1, keep_revisions=None).find()) > 0
    ledger.release()
