"""Shapes say what the numbers say: rates add up to pages, shares to a whole; a run without anything still has a report."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ExitCode
from pipelines.observe.cards import CardUsage
from pipelines.observe.figures import clock, curve, histogram, share_from, slices, worker_time
from pipelines.observe.html import render
from pipelines.observe.report import report_dict
from pipelines.observe.summary import Pool, Summary

STEPS = st.lists(st.tuples(st.floats(0.01, 50), st.integers(1, 500)), min_size=1, max_size=200)


@settings(deadline=None)
@given(STEPS, st.floats(0, 100))
def test_rates_add_up_to_the_pages(steps: list[tuple[float, int]], rest: float) -> None:
    timeline, at, pages = [], 0.0, 0
    for seconds, more in steps:
        at, pages = at + seconds, pages + more
        timeline.append((at, pages))
    drawn = curve(timeline, at + rest)
    assert drawn is not None
    total = sum(width / 100 * drawn.seconds * rate for _, width, _, _, rate in drawn.bars)
    assert total == pytest.approx(pages, rel=1e-6)
    assert sum(width for _, width, *_ in drawn.bars) == pytest.approx(100, rel=1e-6)
    assert max(rate for *_, rate in drawn.bars) == drawn.highest
    assert len(drawn.bars) <= 73
    assert all(-1e-6 <= y <= 100 for _, _, y, _, _ in drawn.bars)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["ok", "failed", "blank", "new"]), st.integers(0, 10**9)))
def test_slices_are_the_whole(counts: dict[str, int]) -> None:
    parts = slices(counts, ("ok", "blank"))
    assert {part.name: part.count for part in parts} == {name: count for name, count in counts.items() if count}
    assert sum(part.share for part in parts) == pytest.approx(100 if parts else 0, abs=0.01)
    for one, following in pairwise(parts):
        assert one.start + one.share == pytest.approx(following.start, abs=0.01)


def test_workers_time_by_pool_with_its_rest() -> None:
    summary = Summary("run", "s", "o", "f", {})
    summary.stage_seconds.update({"rasterize": 4, "recognize": 12})
    summary.pools = {"rasterize": Pool(present=20, idle=10, held=6), "recognize, write": Pool(present=20, idle=2, held=0)}
    (first, whole, parts), (second, _, others) = worker_time(summary.as_dict() | {"workers": 2})
    assert (first, second, whole) == ("rasterize", "recognize to write", 20)
    assert {part.name: round(part.share) for part in parts} == {"rasterize": 20, "starved": 20, "blocked": 30, "other": 30}
    assert {part.name: round(part.share) for part in others} == {"recognize": 60, "starved": 10, "other": 30}


def test_histograms_and_durations() -> None:
    bars = histogram([0, 2, 4, 0])
    assert [(x, height, count) for x, height, count, _ in bars] == [(0, 0, 0), (25, 50, 2), (50, 100, 4), (75, 0, 0)]
    assert bars[1][3] == "0.25 to 0.50"
    assert share_from([1, 1, 2, 4], 0.5) == 75
    assert share_from([0, 0], 0.5) is None
    assert [clock(s) for s in (0.04, 9.94, 31.4, 252, 7500)] == ["0.0 s", "9.9 s", "31 s", "4 min 12 s", "2 h 05 min"]


@pytest.mark.parametrize("status", ["nothing_to_do", "failed", "interrupted", "fenced", "finished"])
def test_a_run_without_anything_has_a_report(status: str) -> None:
    summary = Summary("run", "s3://a", "s3://b", "f", {}, started=1.8e9, ended=1.8e9 + 2)
    summary.status, summary.message = status, "STORE_UNAVAILABLE: <b>gone</b>"
    html = render(report_dict(summary, ExitCode.OK))
    assert "&lt;b&gt;gone" in html
    assert ("Nothing was left to do" in html) == (status == "nothing_to_do")
    assert 'id="pages"' not in html
    assert 'id="failures"' not in html


def test_the_report_has_what_a_card_did_and_a_page_cost() -> None:
    summary = Summary("run", "/in", "/out", "f" * 16, {})
    summary.pages.update(ok=10)
    summary.cards["node7 0 <b>card</b>"] = CardUsage(2, 150.0, 1000.0, 3 << 30, 3500.0, 1)
    summary.quality.tokens, summary.quality.crops, summary.quality.patches = 13_700, 137, 124_500
    page = render(report_dict(summary, ExitCode.OK), [], "")
    assert "node7 0 &lt;b&gt;card&lt;/b&gt;" in page
    assert "75 % busy" in page
    assert "500 W" in page
    assert "50 % at its power limit" in page
    assert "at most 3.0 GiB used" in page
    summary.cards["node7 0 <b>card</b>"] = CardUsage(2, None, None, 3 << 30)
    silent = render(report_dict(summary, ExitCode.OK), [], "")
    assert "% busy" not in silent
    assert "power limit" not in silent
    assert "at most 3.0 GiB used" in silent
    for name, value in (("Tokens a page", "1,370"), ("Crops a page", "14"), ("Patches a page", "12,450")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
