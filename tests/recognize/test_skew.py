"""Pages scanned askew: how far is told, level pages and pictures are left alone, boxes go there and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipelines.recognize.skew import Level, skew
from pipelines.schema import Box, Pixels, RasterPage, Region


def page(angle: float) -> Pixels:
    """Lines of words, turned clockwise by some degrees."""
    pixels = np.full((1100, 850, 3), 240, np.uint8)
    for row in range(40):
        for word in range(9 - row % 3):
            pixels[120 + 22 * row : 130 + 22 * row, 90 + 75 * word : 155 + 75 * word] = 30
    matrix = cv2.getRotationMatrix2D((425, 550), -angle, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (850, 1100), borderValue=(240, 240, 240)), np.uint8)


@pytest.mark.parametrize("angle", [-6.0, -2.5, -0.7, 0.0, 1.2, 5.0])
def test_how_far_a_page_leans(angle: float) -> None:
    assert skew(page(angle)) == pytest.approx(angle, abs=0.15)


def test_what_has_no_lines_is_left_alone() -> None:
    blank = np.full((1100, 850, 3), 240, np.uint8)
    assert skew(blank) == 0
    assert skew(np.random.default_rng(7).integers(0, 255, (1100, 850, 3)).astype(np.uint8)) == 0
    disc = cv2.circle(blank.copy(), (425, 550), 300, (20, 20, 20), -1)
    assert skew(np.asarray(disc, np.uint8)) == 0


def test_a_level_page_has_level_lines_and_its_size() -> None:
    leaning = RasterPage(page(3.0), 72, 850, 1100)
    level = Level(3.0, 850, 1100).page(leaning)
    assert level.pixels.shape == leaning.pixels.shape
    assert skew(level.pixels) == 0
    assert level.pixels[0, 0].tolist() == [240, 240, 240]  # corners are paper


def test_boxes_there_and_back() -> None:
    level = Level(4.0, 850, 1100)
    box = Box(100, 200, 600, 230)
    around = level.back(box)  # as high as the slanting line needs
    assert around.height == pytest.approx(500 * np.sin(np.radians(4)) + 30 * np.cos(np.radians(4)), abs=0.1)
    assert level.region(Region("text", around, 0.9)).box == pytest.approx(box, abs=0.5)
    assert level.back(Box(-50, -50, 900, 1200)) == Box(0, 0, 850, 1100)
