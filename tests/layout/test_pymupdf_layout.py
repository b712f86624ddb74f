"""Layout by PyMuPDF's own model: its regions come with the page from the child process, and are arranged like any other's."""

from __future__ import annotations

import pytest

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.layout.detect import load_engine
from pipelines.raster.isolate import IsolatedRasterizer
from tests.conftest import ROOT

PAPER = ROOT / "samples" / "documents" / "paper-two-columns.pdf"


def test_regions_come_with_the_page_and_lose_no_word() -> None:
    config = load(settings=["layout.engine=pymupdf"])
    with IsolatedRasterizer("pymupdf-layout", 120, 2048) as rasterizer:
        page = rasterizer.render(PAPER, [], 0, 144, 25)
    assert {hint.label for hint in page.hints} >= {"title", "text"}
    engine = load_engine(config)
    (regions,) = engine.detect([page])
    for word in page.words:
        box = word.box.scaled(page.scale)
        assert any(region.box.overlap(box) > 0.4 * box.area for region in regions), word
    assert engine.weights != load_engine(load()).weights


def test_pages_are_drawn_without_it_unless_it_is_asked_for() -> None:
    with IsolatedRasterizer("pymupdf", 120, 2048) as rasterizer:
        assert rasterizer.render(PAPER, [], 0, 72, 25).hints == ()


def test_another_rasterizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"raster\.engine=pymupdf"):
        load_engine(load(settings=["layout.engine=pymupdf", "raster.engine=pypdfium2"]))
