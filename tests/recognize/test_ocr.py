"""Lines read from pixels by the two sizes of PP-OCRv6: the same lines, the same places."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipelines.config import load
from pipelines.errors import EngineFailed
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.recognize.embedded import EmbeddedReader, _text_lines, words_along
from pipelines.recognize.ocr import Line, LineReader, _words
from pipelines.recognize.ocr_fast import FastLineReader
from pipelines.schema import Box, Pixels
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    with IsolatedRasterizer("pypdfium2", 60, 1024) as rasterizer:
        whole = rasterizer.render(ROOT / "samples" / "documents" / "scan.pdf", [], 0, 144, 25).pixels
    return np.ascontiguousarray(whole[: whole.shape[0] // 3])


def test_both_sizes_read_the_same_lines_at_the_same_places(pixels: Pixels) -> None:
    small, whole = LineReader(1).read(pixels, time.monotonic() + 60)
    tiny, whole_too = FastLineReader(1).read(pixels, time.monotonic() + 60)
    assert whole
    assert whole_too
    assert len(small) == len(tiny) > 2
    for one in small:
        other = max(tiny, key=lambda line: line.box.overlap(one.box))
        assert other.box.overlap(one.box) > 0.6 * one.box.area
        assert set(one.text.lower().split()) & set(other.text.lower().split())
    assert tiny == FastLineReader(1).read(pixels, time.monotonic() + 60)[0]


def test_a_line_of_small_stands_alone_and_says_where_its_words_are(pixels: Pixels) -> None:
    reader = LineReader(1)
    lines, _ = reader.read(pixels, time.monotonic() + 60)
    for line in lines:
        assert " ".join(text for text, _ in line.words) == " ".join(line.text.split())
        edges = [edge for _, box in line.words for edge in (box.x0, box.x1)]
        assert edges == sorted(edges)
        assert line.box.x0 - 1 <= edges[0] < edges[-1] <= line.box.x1 + 1
    longest = max(lines, key=lambda line: len(line.text))
    strip = pixels[int(longest.box.y0) - 4 : int(longest.box.y1) + 4]  # wide and low: padded for the detector
    (alone,), _ = reader.read(np.ascontiguousarray(strip), time.monotonic() + 60)
    assert alone.text.split()[:3] == longest.text.split()[:3]
    assert 0 <= alone.box.y0 < alone.box.y1 <= strip.shape[0]
    assert reader.read(np.full((64, 64, 3), 255, np.uint8), time.monotonic() + 60) == ([], True)


def test_words_stand_where_their_letters_do() -> None:
    box = Box(100, 0, 200, 10)
    found = _words(list("ab cd"), [0.05, 0.15, 0.2, 0.8, 0.9], box)  # what proportional letters would put at 160 is at 175
    assert [(text, round(place.x0), round(place.x1)) for text, place in found] == [("ab", 100, 120), ("cd", 175, 195)]
    assert _words(["a"], [0.5], box)[0][0] == "a"
    assert _words([" "], [0.5], box) == ()


def test_a_line_over_a_gap_as_between_columns_is_two() -> None:
    words = (("Fern", Box(0, 0, 40, 10)), ("grows", Box(45, 0, 90, 10)), ("12.5", Box(160, 0, 200, 10)))
    found = _text_lines(Line("Fern grows 12.5", Box(0, 0, 200, 10), 0.9, words))
    assert [line.text for line in found] == ["Fern grows", "12.5"]
    assert found[1].box == Box(160, 0, 200, 10)
    (whole,) = _text_lines(Line("Fern grows", Box(0, 0, 95, 10), 0.9, words[:2]))
    assert whole.box == Box(0, 0, 95, 10)


def test_no_time_is_no_reading(pixels: Pixels) -> None:
    assert LineReader(1).read(pixels, time.monotonic() - 1) == ([], False)
    assert FastLineReader(1).read(pixels, time.monotonic() - 1) == ([], False)


def test_a_panic_fails_the_page_and_not_the_worker(pixels: Pixels) -> None:
    class PanicException(BaseException):
        pass

    class Engine:
        def ocr(self, picture: bytes) -> dict[str, object]:
            raise PanicException("index out of bounds")

    reader = FastLineReader(1)
    reader.__dict__["_engine"] = Engine()
    with pytest.raises(EngineFailed, match="index out of bounds"):
        reader.read(pixels, time.monotonic() + 60)


def test_the_size_is_in_the_weights() -> None:
    small, tiny = (EmbeddedReader(load(settings=[f"recognize.ocr={size}"]).recognize) for size in ("small", "tiny"))
    assert small.weights != tiny.weights


def test_words_along_a_line_share_its_width_by_letters() -> None:
    assert words_along("ab cde", Box(0, 0, 60, 10)) == (("ab", Box(0, 0, 20, 10)), ("cde", Box(30, 0, 60, 10)))
    assert words_along("海ab", Box(0, 0, 40, 10)) == (("海ab", Box(0, 0, 40, 10)),)
    assert words_along("up", Box(0, 0, 10, 60)) == (("up", Box(0, 0, 10, 60)),)
