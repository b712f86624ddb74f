"""`pagemill nightly`: the time at which it ends, what it leaves, and that it never overlaps itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import pagemill
from jobs.cli import main
from pipelines.cluster.feed import Feed
from pipelines.deadline import Deadline, next_occurrence
from pipelines.errors import ConfigError, ExitCode
from pipelines.ingest import ingest
from pipelines.output import open_output
from pipelines.schema import Span
from pipelines.store.audit import audit
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from tests.builders import archive, text_pdf
from tests.conftest import inline, inline_config


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()


@pytest.fixture(autouse=True)
def _own_time_zone() -> Iterator[None]:
    yield  # `berlin` has given the variable back by then
    time.tzset()


def at(text: str, now: str) -> str:
    return next_occurrence(text, datetime.fromisoformat(now)).astimezone(UTC).isoformat(timespec="minutes")


def test_until_is_local_time_unless_it_says_otherwise(berlin: None) -> None:
    winter, summer = "2026-01-10T21:00+00:00", "2026-07-10T21:00+00:00"
    assert at("06:00", winter) == "2026-01-11T05:00+00:00"
    assert at("06:00", summer) == "2026-07-11T04:00+00:00"
    assert at("23:30", summer) == "2026-07-10T21:30+00:00"
    assert at("06:00Z", winter) == "2026-01-11T06:00+00:00"
    assert at("06:00+02:00", winter) == "2026-01-11T04:00+00:00"
    assert at("22:00-05:00", winter) == "2026-01-11T03:00+00:00"
    assert at("06:00:30", winter) == "2026-01-11T05:00+00:00"
    assert at("06:00", "2026-03-28T21:00+00:00") == "2026-03-29T04:00+00:00"  # the clock is put forward in that night
    assert at("06:00", "2026-10-24T20:00+00:00") == "2026-10-25T05:00+00:00"  # and back
    assert at("02:30", "2026-03-28T21:00+00:00")[:10] == "2026-03-29"  # a time that this night does not have


def test_a_time_that_is_now_is_tomorrow(berlin: None) -> None:
    assert at("06:00", "2026-01-10T05:00+00:00") == "2026-01-11T05:00+00:00"


@pytest.mark.parametrize("text", ["6", "25:00", "tomorrow", "06:00+99:00", "2026-01-01", ""])
def test_until_is_a_time_of_day(text: str) -> None:
    with pytest.raises(ConfigError, match="--until"):
        next_occurrence(text, datetime.now(UTC))


def lead(took: float | None, window_s: float = 10_000) -> float:
    until = datetime.now(timezone(timedelta(hours=3))) + timedelta(seconds=window_s)
    return Deadline(until, 600, lambda: took, lambda: None, False).lead_s()


def test_it_drains_as_early_as_what_is_under_way_needs() -> None:
    assert lead(None) == 600  # nothing came back yet
    assert lead(20) == 45
    assert lead(5000) == 600
    assert 49 < lead(None, window_s=100) <= 50  # half of a short night is for reading


def test_a_feed_knows_how_long_pages_take(tmp_path: Path) -> None:
    feed = Feed(ObjectStore(str(tmp_path)), "plan", 100, 4)
    feed.publish([[Span("d", 1, (0, 1, 2), "uri", 3, "pdf")]])
    assert feed.took_s() is None
    time.sleep(0.05)
    feed.received("d", 1, (1,))
    took = feed.took_s()
    assert took is not None
    assert took >= 0.05
    feed.received("d", 1, (1,))  # a second receipt of the same page says nothing
    assert feed.took_s() == took


SLOW = {"recognize.engine": "tests.readers:SlowReader", "source.span_pages": 2, "nightly.drain_s": 3}


def night(source: Path, output: Path, seconds: float, **settings: object) -> tuple[ExitCode, dict[str, object], float]:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    given = {key.replace(".", "__"): value for key, value in SLOW.items()} | settings
    ended = ingest(str(source), str(output), inline_config(output, **given), inline=True, until=until)
    return ended.exit_code, ended.summary.as_dict(), time.time() - until.timestamp()


def test_it_ends_before_its_time_and_says_what_is_left_to_the_next(tmp_path: Path) -> None:
    """A window of nine seconds, three of which are for draining; a page takes a quarter."""
    source, output = archive(tmp_path / "in", {"long": 80} | {f"short-{n:04d}": 1 for n in range(30)}), tmp_path / "out"
    code, said, _ = night(source, output, 9)
    assert code == ExitCode.INTERRUPTED
    assert str(said["message"]).startswith("ended by --until 20")
    assert said["listing_done"] is True  # it went on listing to say what it leaves
    done, pending = pagemill.read(str(output), "pages").num_rows, said["pending"]
    assert done > 0
    assert audit(str(output)).pending == pending
    known = {row["uri"] for row in pagemill.read(str(output), "sources").to_pylist()}
    assert said["left_objects"] == 31 - len(known)
    quick = inline(source, output, source__span_pages=8)  # the night after, with another span size and a faster reader
    assert quick.exit_code == ExitCode.OK
    assert quick.summary.pages == {"ok": 110 - done}


def test_a_night_that_has_time_ends_when_it_is_done(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 2}), tmp_path / "out"
    code, said, late = night(source, output, 3600)
    assert (code, said["status"], said["left_objects"], said["listing_done"]) == (ExitCode.OK, "finished", 0, True)
    assert late < -3000
    assert night(source, output, 3600)[1]["status"] == "nothing_to_do"


def test_an_updated_document_is_a_new_version_and_the_old_one_stays(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 2, "b": 1}), tmp_path / "out"
    inline(source, output)
    (first,) = {row["doc_id"] for row in pagemill.read(str(output), "documents").to_pylist() if "a.pdf" in row["uris"][0]}
    text_pdf(source / "a.pdf", 3, "second edition")
    inline(source, output)
    os.utime(source / "b.pdf")  # touched, and the same: no new version
    inline(source, output)
    versions = pagemill.read(str(output), "versions").to_pylist()
    assert [(Path(row["uri"]).name, row["version"], row["until"] is None) for row in versions] == [
        ("a.pdf", 1, False), ("a.pdf", 2, True), ("b.pdf", 1, True),
    ]  # fmt: skip
    assert versions[0]["doc_id"] == first
    assert versions[0]["until"] == versions[1]["since"]
    history = pagemill.read(str(output), "pages", history=True).to_pylist()
    old = [row["markdown"] for row in history if row["doc_id"] == first]
    assert len(old) == 2
    assert "Document a page 0" in old[0]
    shown = pagemill.read(str(output), "pages").to_pylist()
    assert first not in {row["doc_id"] for row in shown}
    assert sum("second edition" in row["markdown"] for row in shown) == 3


def test_two_nights_never_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    ledger = Ledger(open_output(str(output), inline_config(output).store))
    ledger.claim("the night before", 60, 0.1)
    options = [f"--set={key}={value}" for key, value in {"claim.stale_after_s": 3, "recognize.engine": "echo"}.items()]
    monkeypatch.setattr(sys, "argv", ["pagemill", "nightly", str(source), str(output), "--until", "06:00", "--inline", *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == ExitCode.FENCED
    assert "the night before" in capsys.readouterr().err
    ledger.release()
    ledger.close()


def test_a_night_that_cannot_drain_is_stopped_at_its_time(tmp_path: Path) -> None:
    """What is under way takes minutes: the run ends as by a second signal, and nothing that was committed is lost."""
    source, output = archive(tmp_path / "in", {"a": 9}), tmp_path / "out"
    code, said, late = night(source, output, 12, source__span_pages=1, recognize__engine="tests.readers:StuckReader")
    assert code == ExitCode.INTERRUPTED
    assert late >= 0
    assert str(said["message"]).startswith("stopped at --until")
    assert pagemill.read(str(output), "pages").num_rows == 1
    assert said["pending"] == 8
    assert inline(source, output, source__span_pages=1).exit_code == ExitCode.OK
    assert pagemill.read(str(output), "pages").num_rows == 9
