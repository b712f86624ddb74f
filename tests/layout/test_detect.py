"""Micro-batches: pages of several spans go through an engine together, and one that fails costs itself alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.layout import detect
from pipelines.layout.detect import DetectLayout, load_engine
from pipelines.schema import Box, PageError, PageWork, RasterPage, Region, Span, SpanWork

POISON = 13


class Batched:
    name, weights, batch_pages = "batched", "", 3

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        self.sizes.append(len(pages))
        if any(page.pixels[0, 0, 0] == POISON for page in pages):
            raise RuntimeError("cannot look at this")
        return [[Region("text", Box(0, 0, 1, 1), float(page.pixels[0, 0, 0]))] for page in pages]


def span(values: Sequence[int]) -> SpanWork:
    pages = []
    for index, value in enumerate(values):
        raster = RasterPage(np.full((4, 4, 3), value, np.uint8), 72, 4, 4)
        pages.append(PageWork("d", index, raster=raster))
    return SpanWork(Span("d", 1, tuple(range(len(values))), "u", len(values), "pdf"), "a", pages)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Batched:
    made = Batched()
    monkeypatch.setattr(detect, "load_engine", lambda config: made)
    return made


def test_batches_cross_spans_and_skip_what_has_no_pixels(engine: Batched) -> None:
    works = [span([1, 2]), span([3]), span([4, 5])]
    works[0].pages[1].error = PageError("X", "rasterize", "")
    works[1].pages[0].blank = True
    DetectLayout(load()).detect(works)
    assert engine.sizes == [3]
    assert [page.regions[0].score for page in works[2].pages if page.regions] == [4.0, 5.0]
    assert works[0].pages[1].regions is None
    assert works[1].pages[0].regions is None


def test_a_page_that_the_engine_raises_for_costs_itself_alone(engine: Batched) -> None:
    works = [span([1, POISON]), span([3, 4])]
    DetectLayout(load()).detect(works)
    errors = [page.error.code if page.error else None for work in works for page in work.pages]
    assert errors == [None, "ENGINE_FAILED", None, None]
    assert engine.sizes == [3, 1, 1, 1, 1]


@pytest.mark.parametrize("engine_name", ["transformers", "paddle"])
def test_an_engine_without_its_model_says_which_line_to_type(engine_name: str) -> None:
    with pytest.raises(ConfigError, match=r"--set layout\.model_dir=DIR"):
        load_engine(load(settings=[f"layout.engine={engine_name}"]))
