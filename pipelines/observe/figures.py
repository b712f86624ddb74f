"""Numbers of a run as shapes: bars, a curve, histograms; in percent of whatever place the page gives them.

Invariant: pure, and nothing is smoothed or estimated: a rate is pages committed in an interval over its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STATES = ("ok", "blank", "degraded", "failed")
DOCUMENT_STATES = ("ok", "partial", "encrypted", "failed")
_MOST_INTERVALS = 72
_STAGE_WORDS = {
    "rasterize": "pages to pixels", "layout": "finding regions", "crop": "cutting them out", "recognize": "reading them",
    "finish": "repair, tables", "assemble": "Markdown",
    "write": "Parquet and images", "starved": "waiting for input", "blocked": "waiting for room behind it",
    "other": "start-up, loading models, the end",
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Slice:
    """A part of a stacked bar; `start` and `share` in percent of the whole."""

    name: str
    words: str
    count: float
    start: float
    share: float


@dataclass(slots=True, frozen=True)
class Curve:
    """Pages a second over time, and their sum; paths in a box of 100 x 100, y downwards."""

    rate: str  # closed path
    total: str  # open path
    highest: float  # pages a second
    pages: int
    seconds: float
    interval_s: float
    bars: list[tuple[float, float, float, float, float]]  # x, width, y of an interval; its end in seconds; pages a second


def slices(counts: Mapping[str, float], order: Sequence[str], whole: float | None = None) -> list[Slice]:
    """Parts of a stacked bar in a fixed order, what the order does not name behind it."""
    names = [*order, *sorted(set(counts) - set(order))]
    total = whole if whole is not None else sum(counts.values())
    found, start = [], 0.0
    for name in names:
        count = counts.get(name, 0)
        if count <= 0 or total <= 0:
            continue
        share = 100 * count / total
        found.append(Slice(name, _STAGE_WORDS.get(name, ""), count, round(start, 3), round(share, 3)))
        start += share
    return found


def worker_time(shown: Mapping[str, Any]) -> list[tuple[str, float, list[Slice]]]:
    """For each pool of workers its name, its seconds, and what went into them; what is not accounted for is `other`.

    Without pools (inline) it is the time of the command's own process.
    """
    pools = [
        (" to ".join(dict.fromkeys((pool["stages"][0], pool["stages"][-1]))), pool["worker_seconds"],
         {name: share * pool["worker_seconds"] for name, share in pool["shares"].items()})
        for pool in shown.get("pools") or []
    ] or [("this process", shown["seconds"], shown["stage_seconds"])]  # fmt: skip
    return [(name, seconds, _with_other(spent, seconds)) for name, seconds, spent in pools]


def _with_other(spent: Mapping[str, float], whole: float) -> list[Slice]:
    used = sum(spent.values())
    busy = [name for name in spent if name not in ("starved", "blocked")]
    return slices({**spent, "other": max(0.0, whole - used)}, [*busy, "starved", "blocked", "other"], max(whole, used))


def curve(timeline: Sequence[Sequence[float]], seconds: float) -> Curve | None:
    """From (seconds since start, pages committed so far); None when there is nothing to draw."""
    if not timeline or seconds <= 0 or timeline[-1][1] <= 0:
        return None
    seconds = max(seconds, timeline[-1][0])
    count = max(1, int(seconds / max(1.0, seconds / _MOST_INTERVALS) + 1e-9))
    interval = seconds / count  # equal ones: a short rest of its own would show a rate that never was
    edges = [*(interval * i for i in range(count)), seconds]
    done = [_done(timeline, edge) for edge in edges]
    rates = [(b - a) / max(end - start, 1e-9) for a, b, start, end in zip(done, done[1:], edges, edges[1:], strict=False)]
    highest = max(rates, default=0.0)
    if highest <= 0:
        return None
    points, bars = ["M0,100"], []
    for rate, start, end in zip(rates, edges, edges[1:], strict=False):
        y = 100 - 100 * rate / highest
        points.append(f"L{100 * start / seconds:.2f},{y:.2f} L{100 * end / seconds:.2f},{y:.2f}")
        bars.append((100 * start / seconds, 100 * (end - start) / seconds, y, end, rate))
    total = ["M0,100"] + [f"H{100 * at / seconds:.2f} V{100 - 100 * pages / timeline[-1][1]:.2f}" for at, pages in timeline]
    total.append("H100")
    return Curve(" ".join([*points, "L100,100 Z"]), " ".join(total), highest, int(timeline[-1][1]), seconds, interval, bars)


def histogram(counts: Sequence[int]) -> list[tuple[float, float, int, str]]:
    """For each bin its x and height in percent, its count, and the range in words."""
    most, width = max(counts, default=0) or 1, 100 / max(1, len(counts))
    return [
        (i * width, 100 * count / most, count, f"{i / len(counts):.2f} to {(i + 1) / len(counts):.2f}")
        for i, count in enumerate(counts)
    ]


def share_from(counts: Sequence[int], least: float) -> float | None:
    """Of what a histogram over 0..1 counted, the percentage in the bins from `least` on."""
    total = sum(counts)
    return 100 * sum(counts[round(least * len(counts)) :]) / total if total else None


def clock(seconds: float) -> str:
    """A duration for people: 31 s, 4 min 12 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _done(timeline: Sequence[Sequence[float]], at: float) -> float:
    done = 0.0
    for moment, pages in timeline:
        if moment > at + 1e-9:
            break
        done = pages
    return done
