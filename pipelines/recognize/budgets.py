"""How large a crop is when a vision-language model sees it.

Invariant: pure; sides are whole multiples of 28 pixels (a patch of 14, two by two patches to a token), the area lies
within the budget, and no crop is refused: one that is too long for the model was padded before.
"""

from __future__ import annotations

import math

from pipelines.schema import Pixels

FACTOR = 28
LONGEST = 200  # side over side; the model's own image processor refuses more


def smart_resize(height: int, width: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width of what the model sees of a crop, by the rule of PaddleOCR-VL's image processor.

    Raises:
        ValueError: a side is 0, or one is more than 200 times the other.
    """
    if height <= 0 or width <= 0:
        raise ValueError(f"a crop of {height} x {width} pixels")
    high, wide = float(height), float(width)
    if high < FACTOR:
        high, wide = float(FACTOR), float(round(wide * FACTOR / high))
    if wide < FACTOR:
        high, wide = float(round(high * FACTOR / wide)), float(FACTOR)
    if max(high, wide) / min(high, wide) > LONGEST:
        raise ValueError(f"a crop of {height} x {width} pixels is longer than {LONGEST} times its width")
    out_high, out_wide = round(high / FACTOR) * FACTOR, round(wide / FACTOR) * FACTOR
    if out_high * out_wide > max_pixels:
        shrink = math.sqrt(high * wide / max_pixels)
        out_high = max(FACTOR, math.floor(high / shrink / FACTOR) * FACTOR)
        out_wide = max(FACTOR, math.floor(wide / shrink / FACTOR) * FACTOR)
    elif out_high * out_wide < min_pixels:
        grow = math.sqrt(min_pixels / (high * wide))
        out_high, out_wide = math.ceil(high * grow / FACTOR) * FACTOR, math.ceil(wide * grow / FACTOR) * FACTOR
    return out_high, out_wide


def vision_tokens(height: int, width: int, min_pixels: int, max_pixels: int) -> int:
    """Tokens that a crop costs."""
    high, wide = smart_resize(height, width, min_pixels, max_pixels)
    return high * wide // (FACTOR * FACTOR)


def padded(crop: Pixels) -> Pixels:
    """A crop with white added to its shorter side until the model accepts it."""
    import numpy as np

    high, wide = crop.shape[:2]
    least = -(-max(high, wide) // (LONGEST - 1))  # one below the limit: rounding to 28 pixels must not cross it
    if min(high, wide) >= least:
        return crop
    out = np.full((max(high, least), max(wide, least), 3), 255, np.uint8)
    top, left = (out.shape[0] - high) // 2, (out.shape[1] - wide) // 2
    out[top : top + high, left : left + wide] = crop
    return out
