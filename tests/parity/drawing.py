"""Pages and masks from a seed, the same in both environments: NumPy's generator is stable across versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def page(seed: int, width: int, height: int) -> Array:
    """(height, width, 3) uint8 RGB: bars of print on paper, some of it coloured."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255 - int(rng.integers(0, 12)), np.uint8)
    for _ in range(int(rng.integers(5, 60))):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        wide, high = int(rng.integers(1, max(2, width // 3))), int(rng.integers(1, 24))
        pixels[y : y + high, x : x + wide] = rng.integers(0, 200, 3).astype(np.uint8)
    return pixels


def masks(seed: int, boxes: list[list[float]], width: int, height: int) -> Array:
    """(boxes, 200, 200) uint8: in each box a shape with steps, notches or slanted edges; sometimes nothing."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(boxes), 200, 200), np.uint8)
    ys, xs = np.mgrid[0:200, 0:200]
    for mask, (x0, y0, x1, y1) in zip(out, boxes, strict=True):
        left, right, top, bottom = x0 * 200 / width, x1 * 200 / width, y0 * 200 / height, y1 * 200 / height
        kind = int(rng.integers(0, 6))
        inside = (xs >= left) & (xs < right) & (ys >= top) & (ys < bottom)
        if kind == 1:  # slanted
            slope = float(rng.uniform(-0.4, 0.4))
            inside &= xs + slope * (ys - top) >= left + abs(slope) * (bottom - top) / 2
        elif kind == 2:  # an L
            inside &= ~((xs > (left + right) / 2) & (ys > (top + bottom) / 2))
        elif kind == 3:  # notched
            inside &= ~((np.abs(xs - (left + right) / 2) < (right - left) / 8) & (ys < (top + bottom) / 2))
        elif kind == 4:  # round
            across, down = max(1.0, (right - left) / 2), max(1.0, (bottom - top) / 2)
            inside &= ((xs - (left + right) / 2) / across) ** 2 + ((ys - (top + bottom) / 2) / down) ** 2 <= 1
        elif kind == 5 and rng.random() < 0.3:
            inside &= False
        mask[inside] = 1
    return out
