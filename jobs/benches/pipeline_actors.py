"""The run inside the bench `pipeline`: the product's own, with two things put in the place of what random weights say.

The layout model runs on every page, then its boxes give way to blocks of the page's text layer; each crop's answer is forced
to the length of its block's text. Everything else is the pipeline's. Runs in a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.cluster.graph import Actor, EngineActor
from pipelines.recognize.textlayer import words_by_region
from pipelines.schema import Box, PageWork, RasterPage, Region, Word
from pipelines.stages import Outcome, Site, Works

LEAST_BLOCKS, MOST_BLOCKS = 8, 20
CHARACTERS_A_TOKEN = 3.0  # of dense English text in the released tokenizer, about; no tokenizer of it is here
_LONGEST = 4096
ENDS = "PAGEMILL_BENCH_ENDS"  # folder in which each engine's actor notes when blocks of pages came and went
LONG = "PAGEMILL_BENCH_LONG"  # share of crops whose answers have 4,096 tokens whatever their text


class BenchActor(Actor):
    """Any pool's actor; in that of layout it changes the boxes."""

    def _work(self, before: Any) -> Outcome:
        outcome: Any = super()._work(before)
        if self._name == "layout":
            for page in (page for work in outcome.works for page in work.pages):
                if page.error is None and page.raster is not None and page.regions is not None:
                    page.regions = blocks_of(page.raster)
        return outcome  # type: ignore[no-any-return]


class BenchEngineActor(EngineActor):
    """The engine's actor: lengths are forced before its crops are asked, and it notes when pages came and went."""

    def __init__(self, names: Sequence[str], site: Site) -> None:
        super().__init__(names, site)
        if self._refused is None:
            self._product = self._chain.ask
            self._chain.ask = self._ask  # type: ignore[method-assign]

    async def _ask(self, works: Works) -> Works:
        pages = [page for work in works for page in work.pages]
        self._note("came", len(pages))
        for page in pages:
            force_lengths(page, float(os.environ.get(LONG, 0)))
        works = await self._product(works)
        self._note("went", len(pages))
        return works

    def _note(self, what: str, pages: int) -> None:
        with (Path(os.environ[ENDS]) / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps([time.time(), what, pages]) + "\n")


def force_lengths(page: PageWork, long: float = 0.0) -> None:
    """Each answer as long as its text; a share of them, the same ones in every run, as long as an answer may be."""
    if page.raster is None or page.regions is None:
        return
    drawn = random.Random(f"{page.doc_id} {page.page_index}")
    words = words_by_region(page.regions, page.raster)
    lengths = [sum(len(word.text) + 1 for word in found) for found in words]
    page.crops = [
        replace(
            crop,
            sampling=replace(
                crop.sampling,
                ignore_eos=True,
                max_tokens=_LONGEST if drawn.random() < long else tokens_of(sum(lengths[i] for i in crop.regions)),
            ),
        )
        for crop in page.crops
    ]


def tokens_of(characters: int) -> int:
    return min(_LONGEST, max(1, math.ceil(characters / CHARACTERS_A_TOKEN)))


def blocks_of(page: RasterPage) -> list[Region]:
    """8 to 20 regions around the text layer's lines (fewer where there are fewer lines), in its order."""
    lines: dict[int, list[Word]] = {}
    for word in page.words:
        lines.setdefault(word.line, []).append(word)
    blocks = [[_around([word.box for word in line])] for line in lines.values()]
    while len(blocks) > 1 and (len(blocks) > MOST_BLOCKS or _gap(blocks)[0] < 0.6):
        if len(blocks) <= LEAST_BLOCKS:
            break
        _, at = _gap(blocks)
        blocks[at : at + 2] = [blocks[at] + blocks[at + 1]]
    return [Region("text", _around(block).scaled(page.scale), 1.0) for block in blocks]


def _gap(blocks: Sequence[list[Box]]) -> tuple[float, int]:
    """The smallest distance of two blocks that follow each other, in heights of a line, and where; long blocks count as apart."""
    return min((_apart(blocks[n][-1], blocks[n + 1][0]) + 0.02 * len(blocks[n]), n) for n in range(len(blocks) - 1))


def _apart(above: Box, below: Box) -> float:
    height = max(1.0, above.height)
    beside = max(0.0, below.x0 - above.x1, above.x0 - below.x1)
    return (abs(below.y0 - above.y1) + beside) / height + (5.0 if below.y1 < above.y0 else 0.0)


def _around(boxes: Sequence[Box]) -> Box:
    return Box(min(b.x0 for b in boxes), min(b.y0 for b in boxes), max(b.x1 for b in boxes), max(b.y1 for b in boxes))


def _run(source: str, output: str, *options: str) -> None:
    from pipelines.cluster import graph
    from pipelines.config import load
    from pipelines.ingest import ingest

    graph.Actor = BenchActor  # type: ignore[misc]
    graph.EngineActor = BenchEngineActor  # type: ignore[misc]
    ended = ingest(source, output, load(settings=options))
    print(json.dumps({"exit": int(ended.exit_code), "message": ended.summary.message}), flush=True)


if __name__ == "__main__":
    from jobs.benches.pipeline_actors import _run as run  # under its own name, so that workers find the classes

    run(*sys.argv[1:])
