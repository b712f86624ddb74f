"""A private cluster with a run's figures at its metrics port, until standard input ends.

python -m tests.cluster.shown_figures PORT
"""

from __future__ import annotations

import sys

from pipelines.cluster.session import Session  # first: it has settings to make before Ray is imported

from pipelines.cluster.metrics import Exporter  # isort: skip
from pipelines.config import load
from pipelines.observe.summary import Pool, Summary
from pipelines.recognize.gpu_memory import CardUse


def figures() -> Summary:
    """A run in the middle of its work, every counter another number."""
    summary = Summary("20261124T000000Z-abcdef", "/in", "/out", "f" * 16, {})
    summary.pages.update(ok=31, blank=2, degraded=3, failed=4)
    summary.codes.update(PAGE_TIMEOUT=4)
    summary.documents.update(ok=5, failed=1)
    summary.source_errors.update(HTML_PAGE=7)
    summary.listed.update(new=8, done=9)
    summary.planned_pages, summary.workers, summary.graphs = 100, 2, 1
    summary.stage_seconds.update(rasterize=10, layout=11.5, recognize=60)
    summary.requests.update(get=12, put=13, source_get=14)
    quality = summary.quality
    quality.sources.update(pixels=15, text_layer=16)
    quality.characters.update(pixels=1700, text_layer=1800)
    quality.block_errors.update(CROP_TIMEOUT=19)
    quality.crops, quality.tokens, quality.tokens_saved, quality.patches = 20, 2100, 2200, 2300
    summary.graph_started({"rasterize, layout, recognize": 2}, {"rasterize, layout, recognize": 3.0})
    summary.pools["rasterize, layout, recognize"] = Pool(idle=8.0)
    return summary


def cards() -> list[CardUse]:
    return [CardUse("0 a card", 91.0, 23 << 30, 412.5, 1755.0, True), CardUse("1 a card", 92.0, 24 << 30, 413.0, 1980.0, False)]


def main() -> None:
    config = load(settings=["ray.workers=1", "observe.metrics_port=" + sys.argv[1]])
    with Session(config.ray, 128, config.observe.metrics_port), Exporter(figures(), 0.5, cards):
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
