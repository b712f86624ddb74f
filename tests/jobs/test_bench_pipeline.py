"""What the bench `pipeline` puts in the place of random weights, and what it makes of an engine's notes."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.benches.pipeline import _after, _Note, _speed
from jobs.benches.pipeline_actors import CHARACTERS_A_TOKEN, blocks_of, force_lengths
from pipelines.recognize.base import Crop, Sampling
from pipelines.schema import Box, PageWork, RasterPage, Word


def page(lines: int, columns: int = 1) -> RasterPage:
    words = tuple(
        Word(f"word{n}", Box(40 + 300 * column + 60 * n, 40 + 14 * line, 90 + 300 * column + 60 * n, 52 + 14 * line),
             column * lines + line, 11.0)
        for column in range(columns)
        for line in range(lines)
        for n in range(4)
    )  # fmt: skip
    return RasterPage(np.zeros((1684, 1191, 3), np.uint8), 144, 595.3, 841.9, words)


@pytest.mark.parametrize(("lines", "columns", "least", "most"), [(50, 1, 8, 20), (40, 2, 8, 20), (3, 1, 3, 3), (300, 1, 8, 20)])
def test_a_page_becomes_few_blocks_that_hold_all_its_words(lines: int, columns: int, least: int, most: int) -> None:
    made = page(lines, columns)
    regions = blocks_of(made)
    assert least <= len(regions) <= most
    for word in made.words:
        box = word.box.scaled(made.scale)
        assert any(box.overlap(region.box) >= 0.99 * box.area for region in regions)
    assert max(region.box.height for region in regions) < 0.5 * 14 * lines * columns * made.scale or lines < 8


def test_an_answer_is_as_long_as_its_blocks_text() -> None:
    raster = page(20)
    work = PageWork("d", 0, raster=raster, regions=blocks_of(raster))
    assert work.regions is not None
    work.crops = [
        Crop((n,), np.zeros((8, 8, 3), np.uint8), "ocr", "OCR:", 784, 200_704, Sampling()) for n in range(len(work.regions))
    ]
    force_lengths(work)
    assert all(crop.sampling.ignore_eos for crop in work.crops)
    written = sum(len(word.text) + 1 for word in raster.words)
    total = sum(crop.sampling.max_tokens for crop in work.crops)
    assert written / CHARACTERS_A_TOKEN <= total <= written / CHARACTERS_A_TOKEN + len(work.crops)


def test_a_share_of_answers_is_as_long_as_may_be() -> None:
    found: list[list[int]] = []
    for _ in range(2):
        lengths: list[int] = []
        for number in range(40):
            raster = page(20)
            work = PageWork("d", number, raster=raster, regions=blocks_of(raster))
            assert work.regions is not None
            work.crops = [
                Crop((n,), np.zeros((8, 8, 3), np.uint8), "ocr", "OCR:", 784, 200_704, Sampling())
                for n in range(len(work.regions))
            ]
            force_lengths(work, 0.1)
            lengths += [crop.sampling.max_tokens for crop in work.crops]
        found.append(lengths)
    assert found[0] == found[1]
    assert 0.05 < found[0].count(4096) / len(found[0]) < 0.15


def test_speed_and_what_a_death_did() -> None:
    notes = [_Note(0.0, "came", 8, "a"), _Note(0.0, "came", 8, "b")]
    notes += [_Note(1.0 + n, "went", 10, "a") for n in range(10)]
    notes += [_Note(1.5, "went", 10, "b"), _Note(6.0, "came", 8, "c"), _Note(8.5, "went", 10, "c")]
    row = _speed(notes, 120)
    assert row["pages read"] == 120
    assert row["pages/s"] == 12.0
    assert row["after a tenth"] == pytest.approx(110 / 9, abs=0.01)
    assert _after(notes, 2.0) == {"others' longest pause s": 1.0, "back after s": 4.0}
    assert _after(notes, None) == {}
