"""Sanity rules over what a layout model found, with the text layer as witness.

Invariant: no visible word of a text layer is outside every region afterwards; regions of one page do not contain each
other. Content is never taken from here.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.schema import Box, RasterPage, Region, Word

_PAGE = 0.75  # share of the page beyond which one table or figure is a mistake of the model, if there is much text
_MANY_WORDS = 60
_INSIDE = 0.7  # share of a box that another one must hold to swallow it


def sane(regions: Sequence[Region], page: RasterPage) -> list[Region]:
    """Regions without false page-wide ones and duplicates, and with text regions for words that none holds."""
    height, width = page.pixels.shape[:2]
    whole = float(height * width)
    kept = [
        region
        for region in regions
        if not (region.label in ("table", "figure") and region.box.area > _PAGE * whole and len(page.words) > _MANY_WORDS)
    ]
    kept = _without_contained(kept)
    return kept + _uncovered(kept, page)


def _without_contained(regions: list[Region]) -> list[Region]:
    """Of two regions, one inside the other, the larger stays; of two alike, the more certain one."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda r: (-r.box.area, -r.score)):
        if all(other.box.overlap(region.box) < _INSIDE * region.box.area for other in kept):
            kept.append(region)
    return kept


def _uncovered(regions: Sequence[Region], page: RasterPage) -> list[Region]:
    """Text regions around lines of the text layer that no region holds; lines close together form one."""
    lines: dict[int, list[Word]] = {}
    for word in page.words:
        box = word.box.scaled(page.scale)
        if not any(holds(region.box, box) for region in regions):
            lines.setdefault(word.line, []).append(word)
    found: list[Box] = []
    for words in lines.values():
        box = around([word.box for word in words]).scaled(page.scale)
        size = box.height
        last = found[-1] if found else None
        overlaps = last is not None and min(last.x1, box.x1) - max(last.x0, box.x0) > 0.3 * min(last.width, box.width)
        if last is not None and overlaps and -size < box.y0 - last.y1 < 0.8 * size:
            found[-1] = around([last, box])
        else:
            found.append(box)
    return [Region("text", box, 0.0) for box in found]


def holds(outer: Box, inner: Box) -> bool:
    """Whether the middle of `inner` lies in `outer`."""
    x, y = (inner.x0 + inner.x1) / 2, (inner.y0 + inner.y1) / 2
    return outer.x0 <= x <= outer.x1 and outer.y0 <= y <= outer.y1


def around(boxes: Sequence[Box]) -> Box:
    return Box(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )
