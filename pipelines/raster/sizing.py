"""How many pixels a page becomes.

Invariant: no page, whatever its declared size, becomes more than `max_megapixels`, nor less than one pixel a side.
"""

from __future__ import annotations

import math

_LARGEST_PT = 14400.0 * 75000  # UserUnit may scale a page up to this; beyond it a size is a lie
_LONGEST_SIDE = 20_000  # pixels; a strip of 1 x 14400 pt keeps its shape below this


def usable(width_pt: float, height_pt: float) -> bool:
    """Whether a page of this size can be drawn at all."""
    return all(math.isfinite(side) and 0 < side < _LARGEST_PT for side in (width_pt, height_pt))


def fitting_dpi(width_pt: float, height_pt: float, dpi: float, max_megapixels: float) -> float:
    """`dpi`, or the largest lower one at which the page has at most `max_megapixels` and no side beyond 20,000 pixels."""
    scale = dpi / 72.0
    by_area = math.sqrt(max_megapixels * 1e6 / (width_pt * height_pt))
    by_side = _LONGEST_SIDE / max(width_pt, height_pt)
    return 72.0 * min(scale, by_area, by_side)
