"""Which of the regions that a layout engine found become blocks: of two that say the same, one.

Invariant: pure; regions keep their order. A picture, chart, table or seal that holds something of another kind stays
beside it, except text inside a table, which the table already has.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.layout.polygons import polygon_overlap
from pipelines.schema import Box, Region

_LEAST = 6  # pixels: thinner is nothing to read
_SAME = 0.7  # share of the smaller box
_INLINE = 0.5
_HOLDERS = frozenset({"image", "table", "seal", "chart"})


def keep(regions: Sequence[Region], labels: Sequence[str], outlines: bool, strict: bool) -> list[int]:
    """Indices of the regions that become blocks.

    Args:
        labels: the official word of each region.
        outlines: whether polygons count (shape mode other than rect).
        strict: drop every `reference` box, as the official code does; else only one whose entries were found themselves.
    """
    left = [i for i, label in enumerate(labels) if label != "reference" or not (strict or _framed(i, regions, labels))]
    dropped: set[int] = set()
    for position, i in enumerate(left):
        if thin(regions[i].box):
            dropped.add(i)
        for j in left[position + 1 :]:
            if i not in dropped and j not in dropped:
                dropped |= _losers(i, j, regions, labels, outlines)
    return [i for i in left if i not in dropped]


def thin(box: Box) -> bool:
    return box.width < _LEAST or box.height < _LEAST


def small_overlap(a: Box, b: Box) -> float:
    """Intersection over the smaller area; 0 where there is none."""
    least = min(a.area, b.area)
    return a.overlap(b) / least if least > 0 else 0.0


def _framed(i: int, regions: Sequence[Region], labels: Sequence[str]) -> bool:
    """Whether a `reference` box is only the frame of entries that were found themselves."""
    frame = regions[i].box
    return any(
        label == "reference_content" and frame.overlap(region.box) > _INLINE * region.box.area
        for region, label in zip(regions, labels, strict=True)
    )


def _losers(i: int, j: int, regions: Sequence[Region], labels: Sequence[str], outlines: bool) -> set[int]:
    a, b = regions[i], regions[j]
    share = small_overlap(a.box, b.box)
    inline = {n for n in (i, j) if labels[n] == "inline_formula"}
    if inline and share > _INLINE:
        return inline
    if share <= _SAME:
        return set()
    if outlines and a.polygon and b.polygon and polygon_overlap(a.polygon, b.polygon) < _SAME:
        return set()
    pair = {labels[i], labels[j]}
    if len(pair) == 2 and pair & _HOLDERS and ("table" not in pair or pair <= _HOLDERS):
        return set()
    return {j} if a.box.area >= b.box.area else {i}
