"""Pages that stand on their side: found by the real weights, turned with their text layer, and turned again when drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pagemill
from pipelines.assemble.official.page import pruned_result
from pipelines.assemble.official.stored import stored_page
from pipelines.config import load
from pipelines.ingest import fingerprint_of, ingest
from pipelines.layout.detect import DetectLayout
from pipelines.layout.orientation import Orientation, turned
from pipelines.observe.pages import PageDrawer
from pipelines.schema import Box, PageWork, RasterPage, Span, SpanWork, Word
from tests.conftest import ROOT

SAMPLE = ROOT / "samples" / "documents" / "paper-two-columns.pdf"


def sample() -> RasterPage:
    import pymupdf

    with pymupdf.open(SAMPLE) as document:
        drawn = document[0].get_pixmap(dpi=100)
        pixels = np.frombuffer(drawn.samples, np.uint8).reshape(drawn.height, drawn.width, 3).copy()
        words = tuple(Word(w[4], Box(*w[:4]), w[5] * 1000 + w[6], 10.0) for w in document[0].get_text("words"))
        return RasterPage(pixels, 100.0, document[0].rect.width, document[0].rect.height, words)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_a_page_is_found_upright_or_not(angle: int) -> None:
    page = sample()
    lying = turned(page, 360 - angle)
    assert Orientation(1).angle(lying.pixels) == angle
    upright = turned(lying, angle)
    assert np.array_equal(upright.pixels, page.pixels)
    for before, after in zip(page.words, upright.words, strict=True):
        assert np.allclose(before.box, after.box)


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_words_stay_on_their_ink(angle: int) -> None:
    pixels = np.full((200, 400, 3), 255, np.uint8)
    pixels[20:30, 40:90] = 0
    page = RasterPage(pixels, 72.0, 400.0, 200.0, (Word("w", Box(40, 20, 90, 30), 0, 10.0),))
    found = turned(page, angle)
    x0, y0, x1, y1 = map(int, found.words[0].box)
    assert (found.pixels[y0:y1, x0:x1] == 0).all()
    assert (found.pixels == 0).all(axis=2).sum() == 500
    assert (found.width_pt, found.height_pt) == (found.pixels.shape[1], found.pixels.shape[0])


def test_the_layout_stage_turns_a_page_and_says_so() -> None:
    config = load(settings=["layout.engine=none", "paddleocr_vl.use_doc_orientation_classify=true"])
    lying = turned(sample(), 270)
    page = PageWork("d", 0, raster=lying, width_px=lying.pixels.shape[1], height_px=lying.pixels.shape[0])
    DetectLayout(config).detect([SpanWork(Span("d", 1, (0,), "u", 1, "pdf"), "a", [page])])
    assert page.turned == 90
    assert page.raster is not None
    assert page.regions is not None
    assert (page.width_px, page.height_px) == (lying.pixels.shape[0], lying.pixels.shape[1])
    assert page.regions[0].box == (0, 0, page.width_px, page.height_px)


def test_a_turned_page_is_drawn_again_as_it_was_read(tmp_path: Path) -> None:
    import pymupdf

    (tmp_path / "in").mkdir()
    with pymupdf.open(SAMPLE) as upright, pymupdf.open() as lying:
        page = lying.new_page(width=upright[0].rect.height, height=upright[0].rect.width)
        page.insert_image(page.rect, pixmap=upright[0].get_pixmap(dpi=150), rotate=90)
        lying.save(tmp_path / "in" / "lying.pdf")
    settings = ["layout.engine=none", "recognize.engine=echo", "paddleocr_vl.use_doc_orientation_classify=true"]
    config = load(settings=settings)
    ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True)
    (row,) = pagemill.read(str(tmp_path / "out"), "pages").to_pylist()
    assert row["turned"] == 90 or row["turned"] == 270
    assert row["height_px"] > row["width_px"]
    with PageDrawer(config) as drawer:
        assert drawer.draw(row, str(tmp_path / "in" / "lying.pdf")).shape == (row["height_px"], row["width_px"], 3)
    result = pruned_result(stored_page(row, config.paddleocr_vl)[0], config.paddleocr_vl)
    assert result["doc_preprocessor_res"]["angle"] == row["turned"]
    assert result["model_settings"]["use_doc_preprocessor"] is True
    assert fingerprint_of(config) != fingerprint_of(load(settings=settings[:2]))
