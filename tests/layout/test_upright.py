"""Pages that lie: turned upright by their layer or by what they look like, and left alone where that is not certain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.config import load
from pipelines.layout.orientation import turned
from pipelines.layout.upright import Upright, upright_of
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.schema import Box, RasterPage, Word
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def upright() -> Upright:
    return Upright(1)


@pytest.fixture(scope="module")
def scan() -> RasterPage:
    """A scanned page of the samples, as it should stand."""
    with IsolatedRasterizer("pypdfium2", 60, 1024) as rasterizer:
        return replace(rasterizer.render(ROOT / "samples" / "documents" / "scan.pdf", [], 0, 144, 25), words=(), hidden_words=())


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_scan_is_turned_back(scan: RasterPage, upright: Upright, quarters: int) -> None:
    assert upright.angle(turned(scan, 90 * quarters)) == (360 - 90 * quarters) % 360


def test_a_sparse_page_stays(upright: Upright) -> None:
    pixels = np.full((800, 600, 3), 255, np.uint8)
    pixels[380:384, 200:400] = 0
    page = RasterPage(pixels, 72, 600, 800)
    assert upright.angle(page) == 0
    tiny = RasterPage(pixels[:100, :100], 72, 100, 100)
    assert upright.angle(tiny) == 0


def test_upside_down_needs_a_better_reading(scan: RasterPage) -> None:
    class Blind:
        def read(self, pixels: object, until: float) -> tuple[list[object], bool]:
            return [], True

    upright = Upright(1)
    upright.__dict__["_lines"] = Blind()
    assert upright.angle(turned(scan, 180)) == 0


def words(up: bool) -> tuple[Word, ...]:
    """Six lines that run up (or down) a page of 600 x 800."""
    places = [(100 + 20 * line, 700 - 60 * n if up else 100 + 60 * n, line) for line in range(6) for n in range(5)]
    return tuple(Word("harbour", Box(x, y, x + 10, y + 40), line, 10) for x, y, line in places)


@pytest.mark.parametrize(("up", "angle"), [(True, 270), (False, 90)])
def test_a_text_layer_says_how_its_lines_run(upright: Upright, up: bool, angle: int) -> None:
    page = RasterPage(np.full((800, 600, 3), 255, np.uint8), 72, 600, 800, words(up))
    assert upright.angle(page) == angle
    first, second = turned(page, angle).words[:2]
    assert first.box.x1 < second.box.x0  # lines run to the right now


def test_upright_lines_and_a_title_up_the_margin_stay(upright: Upright) -> None:
    level = tuple(
        Word("harbour", Box(100 + 60 * n, 100 + 20 * m, 140 + 60 * n, 110 + 20 * m), m, 10) for m in range(9) for n in range(5)
    )
    margin = tuple(replace(word, line=20) for word in words(True)[:5])
    page = RasterPage(np.full((800, 600, 3), 255, np.uint8), 72, 600, 800, level + margin)
    assert upright.angle(page) == 0


def test_models_see_pages_as_they_are() -> None:
    assert upright_of(load()) is not None
    assert upright_of(load(settings=["recognize.engine=echo"])) is None
    assert upright_of(load(settings=["recognize.engine=echo", "layout.upright=always"])) is not None
    assert upright_of(load(settings=["layout.upright=never"])) is None
