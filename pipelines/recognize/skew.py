"""Pages scanned a little askew: how far, and the same page with its lines level, so that rows are rows again.

Invariant: pure. Only pixels and the layout model's boxes are turned for reading; what is stored lies where it lies on the
page as it was drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipelines.schema import Box, Pixels, RasterPage, Region

_MOST = 8.0  # degrees
_COARSE, _FINE = 0.5, 0.1  # degrees between two angles that are tried
_LEAST = 0.4  # degrees: less does no harm
_SIDE = 1000  # pixels of the page's longer side when angles are tried: 30 ms
_INK = 40  # of 255, darker than the paper
_LINES = 1.5  # times as sharp as at most angles: lines of text are 2 to 30 times, a picture is the same at all
_CLEARER = 1.1  # times as sharp the rows must be as without turning


def skew(pixels: Pixels) -> float:
    """Degrees by which a page must be turned counter-clockwise so that its lines are level; 0 where that is not certain.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    import cv2

    ratio = min(1.0, _SIDE / max(pixels.shape[:2]))
    grey = cv2.resize(np.ascontiguousarray(pixels[:, :, 1]), None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    ink = (grey < np.median(grey) - _INK).astype(np.uint8)
    if not ink.any():
        return 0.0
    level = _sharpness(ink, 0.0)
    coarse = [step * _COARSE for step in range(-int(_MOST / _COARSE), int(_MOST / _COARSE) + 1)]
    clear = [_sharpness(ink, angle) for angle in coarse]
    best = coarse[clear.index(max(clear))]
    if max(clear) < _LINES * float(np.median(clear)):
        return 0.0
    fine = [best + step * _FINE for step in range(-4, 5)]
    best = max(fine, key=lambda angle: _sharpness(ink, angle))
    sure = abs(best) >= _LEAST and abs(best) < _MOST and _sharpness(ink, best) > _CLEARER * level
    return round(best, 1) if sure else 0.0


def _sharpness(ink: npt.NDArray[np.uint8], angle: float) -> float:
    """How suddenly ink begins and ends from row to row when columns are shifted as the angle would turn them."""
    import cv2

    height, width = ink.shape
    slope = math.tan(math.radians(angle))
    shift = np.array([[1, 0, 0], [-slope, 1, slope * width / 2]], np.float64)
    rows = cv2.warpAffine(ink, shift, (width, height), flags=cv2.INTER_NEAREST).sum(axis=1, dtype=np.int64)
    return float((np.diff(rows) ** 2).sum())


@dataclass(frozen=True)
class Level:
    """A page turned about its middle by a few degrees."""

    angle: float  # counter-clockwise
    width: int
    height: int

    @cached_property
    def _matrix(self) -> npt.NDArray[np.float64]:
        import cv2

        return np.asarray(cv2.getRotationMatrix2D((self.width / 2, self.height / 2), self.angle, 1.0), np.float64)

    def page(self, page: RasterPage) -> RasterPage:
        """The page with level lines, of the same size, corners filled with its paper; no text layer."""
        import cv2

        paper = np.median(page.pixels[::8, ::8], axis=(0, 1)).tolist()
        turned = cv2.warpAffine(
            np.ascontiguousarray(page.pixels), self._matrix, (self.width, self.height), flags=cv2.INTER_LINEAR, borderValue=paper
        )
        return replace(page, pixels=turned, words=(), hidden_words=())

    def region(self, region: Region) -> Region:
        """A region of the page as it was drawn; its box, which had to hold slanting lines, shrinks to what they need."""
        box = region.box
        sine, cosine = math.sin(math.radians(abs(self.angle))), math.cos(math.radians(self.angle))
        width = max(0.5 * box.width, (box.width * cosine - box.height * sine) / (cosine**2 - sine**2))
        height = max(0.3 * box.height, (box.height * cosine - box.width * sine) / (cosine**2 - sine**2))
        x, y = self._matrix @ ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, 1)
        return replace(region, box=Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))

    def back(self, box: Box) -> Box:
        """A box of the level page as the upright box around it on the page as it was drawn."""
        import cv2

        inverse = cv2.invertAffineTransform(self._matrix)
        corners = np.array([[x, y, 1] for x in (box.x0, box.x1) for y in (box.y0, box.y1)]) @ inverse.T
        (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
        return Box(
            max(0.0, float(x0)), max(0.0, float(y0)), min(float(self.width), float(x1)), min(float(self.height), float(y1))
        )
