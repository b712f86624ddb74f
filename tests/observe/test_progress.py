"""What people see while it runs: lines where there is no terminal, a bar where there is one; only what was measured."""

from __future__ import annotations

import io
import os
import pty
import re
import time
from collections.abc import Callable

import pytest

from pipelines.observe.progress import Progress
from pipelines.observe.summary import Summary
from pipelines.schema import SpanReceipt


@pytest.fixture
def summary() -> Summary:
    return Summary("run", "in", "out", "print", {})


def committed(summary: Summary, *states: str) -> None:
    count = len(states)
    receipt = SpanReceipt("d" * 64, 1, tuple(range(count)), states, ("",) * count, 1, "attempt", "part")
    summary.committed([receipt], {})


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_line_now_and_then_where_there_is_no_terminal(summary: Summary) -> None:
    stream = io.StringIO()
    summary.planned_pages = 4
    with Progress(summary, 0.05, stream):
        committed(summary, "ok", "failed", "blank")
        until(lambda: "pages 3/4+ (planning)" in stream.getvalue())
        summary.planning_done = True
        until(lambda: "pages 3/4  " in stream.getvalue())
    lines = stream.getvalue().splitlines()
    assert all(re.fullmatch(r"pages \d/4.*/s  failed \d  elapsed \d+:\d\d", line) for line in lines), lines
    assert "failed 1" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_no_remaining_time_before_a_rate_was_measured(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("pipelines.observe.progress.time.monotonic", lambda: now[0])
    progress = Progress(summary, 60, io.StringIO())
    summary.planned_pages = 101
    assert "left" not in progress.line()
    committed(summary, "ok")
    now[0] += 5
    assert "left" not in progress.line()  # planning is not done
    summary.planning_done = True
    assert "left" not in progress.line()  # five seconds are no rate
    committed(summary, *["ok"] * 20)
    now[0] += 16
    assert progress.line().endswith("about 1:20 left at this rate")  # 21 pages in 21 s, 80 to go


def test_a_bar_on_a_terminal(summary: Summary) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        summary.planned_pages, summary.planning_done = 2, True
        with Progress(summary, 60, terminal):
            committed(summary, "ok")
            shown = b""
            end = time.monotonic() + 60
            while b"pages 1/2" not in shown and time.monotonic() < end:
                shown += os.read(ours, 65536)
    os.close(ours)
    assert b"pages 1/2" in shown
    assert b"\x1b[" in shown
