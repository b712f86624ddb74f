"""Tables found by their rules: lines drawn on a page, as pixels show them. The only importer of `cv2` in this room.

Invariant: pure; rules find where a table is, never what its cells are (measured: a grid cut from rules alone scored .681
TEDS on real tables where the structure model scored .961).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.layout.rules import around
from pipelines.schema import Box, Pixels

_DARK = 32  # of 255, darker than the paper beside it: light grey rules are common
_SHORTEST_ACROSS = 0.04  # of the page's width
_SHORTEST_DOWN = 0.016  # of the page's height: a row of a table; an upright letter is shorter
_THICKEST = 0.006  # of the page's height; more is a bar, not a rule
_TOUCH = 0.004  # of the page's height: rules this near meet
_GAP = 0.03  # of the page's height: pieces of one table between which rules are broken


@dataclass(slots=True, frozen=True)
class Rules:
    """Straight lines drawn on a page, as boxes in pixels."""

    across: tuple[Box, ...]
    down: tuple[Box, ...]


def find_rules(pixels: Pixels) -> Rules:
    """
    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    thick = max(3, int(_THICKEST * height))
    across = _runs(grey, (max(8, int(_SHORTEST_ACROSS * width)), 1), (1, 2 * thick + 1))
    down = _runs(grey, (1, max(8, int(_SHORTEST_DOWN * height))), (2 * thick + 1, 1))
    return Rules(
        tuple(box for box in across if box.height <= thick and box.width > 4 * box.height),
        tuple(box for box in down if box.width <= thick and box.height > 4 * box.width),
    )


def _runs(grey: Pixels, along: tuple[int, int], beside: tuple[int, int]) -> list[Box]:
    """Dark runs of at least the size `along`, darker than what lies beside them within `beside`. 4 ms a page at 144 dpi."""
    import cv2

    paper = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_RECT, beside))
    dark = (cv2.subtract(paper, grey) > _DARK).view(np.uint8)
    runs = cv2.morphologyEx(dark, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, along))
    outlines, _ = cv2.findContours(runs, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = sorted(cv2.boundingRect(outline) for outline in outlines)
    return [Box(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in found]


def grids(rules: Rules, page_height: float) -> list[Box]:
    """Places where rules across and down meet in at least two rows and two columns."""
    near = max(2.0, _TOUCH * page_height)
    return _joined(_grids(rules, near), near, _GAP * page_height)


def stacks(rules: Rules, page_height: float) -> list[Box]:
    """Places of three rules or more, one above the other, that begin and end alike; beside each other they are one."""
    near = max(2.0, _TOUCH * page_height)
    found = _stacks(rules.across, near)
    done: list[Box] = []
    for box in sorted(found, key=lambda b: (b.x0, b.y0)):
        beside = [other for other in done if min(box.y1, other.y1) - max(box.y0, other.y0) > 0.8 * max(box.height, other.height)]
        done = [other for other in done if other not in beside] + [around([box, *beside])]
    return done


def _grids(rules: Rules, near: float) -> list[Box]:
    groups: list[list[tuple[Box, bool]]] = []
    for rule, is_down in [*((r, False) for r in rules.across), *((r, True) for r in rules.down)]:
        meeting = [group for group in groups if any(_meet(rule, other, near) for other, _ in group)]
        joined = [(rule, is_down), *(entry for group in meeting for entry in group)]
        groups = [group for group in groups if group not in meeting] + [joined]
    boxes = []
    for group in groups:
        across = _levels([box.y0 for box, is_down in group if not is_down], near)
        down = _levels([box.x0 for box, is_down in group if is_down], near)
        if len(across) >= 3 and len(down) >= 3:
            boxes.append(around([box for box, _ in group]))
    return boxes


def _joined(boxes: Sequence[Box], near: float, gap: float) -> list[Box]:
    """Grids that lie in each other, or one below the other with the same sides, are pieces of one table."""
    done: list[Box] = []
    for box in sorted(boxes, key=lambda found: (found.y0, found.x0)):
        pieces = [other for other in done if _piece_of(box, other, near, gap)]
        done = [other for other in done if other not in pieces] + [around([box, *pieces])]
    return done


def _piece_of(box: Box, other: Box, near: float, gap: float) -> bool:
    if box.overlap(other) > 0.1 * min(box.area, other.area):
        return True
    apart = max(box.y0 - other.y1, other.y0 - box.y1)
    return apart < gap and abs(box.x0 - other.x0) < 2 * near and abs(box.x1 - other.x1) < 2 * near


def _stacks(across: Sequence[Box], near: float) -> list[Box]:
    """Three rules or more, one above the other, that begin and end alike."""
    left = sorted(across, key=lambda box: box.y0)
    found = []
    while left:
        first, *rest = left
        alike = [first, *(box for box in rest if abs(box.x0 - first.x0) < 2 * near and abs(box.x1 - first.x1) < 2 * near)]
        if len(_levels([box.y0 for box in alike], near)) >= 3:
            found.append(around(alike))
        left = [box for box in left if box not in alike]
    return found


def _levels(values: Sequence[float], near: float) -> list[float]:
    kept: list[float] = []
    for value in sorted(values):
        if not kept or value - kept[-1] > near:
            kept.append(value)
    return kept


def _meet(one: Box, other: Box, near: float) -> bool:
    return one.x0 - near <= other.x1 and other.x0 - near <= one.x1 and one.y0 - near <= other.y1 and other.y0 - near <= one.y1


def _inside(inner: Box, outer: Box, near: float) -> bool:
    return (
        inner.x0 >= outer.x0 - near
        and inner.x1 <= outer.x1 + near
        and inner.y0 >= outer.y0 - near
        and inner.y1 <= outer.y1 + near
    )
