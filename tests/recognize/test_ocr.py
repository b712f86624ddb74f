"""Lines read from pixels by the two sizes of PP-OCRv6: the same lines, the same places."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipelines.config import load
from pipelines.errors import EngineFailed
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.recognize.embedded import EmbeddedReader, words_along
from pipelines.recognize.ocr import LineReader
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


def test_no_time_is_no_reading(pixels: Pixels) -> None:
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
