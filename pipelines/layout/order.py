"""Reading order by recursive XY-cut over boxes.

Invariant: pure; every box comes out once. A gap across the whole region splits it into rows or columns, the wider gap
(relative to the text) first; columns are read left to right, rows top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.schema import Box

_CELL = 8  # times the least gap: the height of two lines
_LEAST_GAP = 0.004  # of the page's longer side: less is the spacing of lines that touch


def reading_order(boxes: Sequence[Box]) -> list[int]:
    """Indices of `boxes` in reading order (left to right, top to bottom scripts)."""
    if not boxes:
        return []
    longest = max(max(box.x1, box.y1) for box in boxes)
    return _cut(list(range(len(boxes))), boxes, max(1.0, longest * _LEAST_GAP))


def _cut(some: list[int], boxes: Sequence[Box], least: float) -> list[int]:
    if len(some) == 1:
        return some
    columns = _split([(boxes[i].x0, boxes[i].x1, i) for i in some], least)
    rows = _split([(boxes[i].y0, boxes[i].y1, i) for i in some], least)
    if len(rows) > 1 and len(columns) > 1 and _spans_columns(rows, columns) and _low(some, boxes, least):
        groups = rows
    elif len(columns) > 1:
        groups = columns
    elif len(rows) > 1:
        groups = _bands(rows, boxes, least)
    else:
        return sorted(some, key=lambda i: (boxes[i].y0, boxes[i].x0))
    return [i for group in groups for i in _cut(group, boxes, least)]


def _bands(rows: list[list[int]], boxes: Sequence[Box], least: float) -> list[list[int]]:
    """Rows, those that lie one above the other in the same columns taken together: a gap that happens to run through all
    columns does not end them, what stretches over several does."""
    bands: list[list[int]] = [rows[0]]
    for row in rows[1:]:
        if _columns(bands[-1], boxes, least) > 1 and _columns([*bands[-1], *row], boxes, least) > 1:
            bands[-1] = [*bands[-1], *row]
        else:
            bands.append(row)
    return bands if len(bands) > 1 else rows


def _columns(some: list[int], boxes: Sequence[Box], least: float) -> int:
    return len(_split([(boxes[i].x0, boxes[i].x1, i) for i in some], least))


def _split(edges: list[tuple[float, float, int]], least: float) -> list[list[int]]:
    """Groups of intervals that no gap of at least `least` separates; a little overlap (a quarter of the gap) is noise."""
    edges.sort()
    groups, end = [[edges[0][2]]], edges[0][1]
    for start, stop, index in edges[1:]:
        if start - end >= least:
            groups.append([])
        groups[-1].append(index)
        end = max(end, stop)
    return groups


def _low(some: list[int], boxes: Sequence[Box], least: float) -> bool:
    """Whether all boxes are as low as the cells of a form: paragraphs in columns may be equally many by chance."""
    return max(boxes[i].height for i in some) < _CELL * least


def _spans_columns(rows: list[list[int]], columns: list[list[int]]) -> bool:
    """Whether rows should be cut before columns: a row that stands alone in one column is part of it, so cut columns first
    unless each column has its boxes in every row (a grid of labels and values reads row by row)."""
    column_of = {i: number for number, group in enumerate(columns) for i in group}
    return all(len({column_of[i] for i in row}) == len(columns) for row in rows) and max(map(len, rows)) == len(columns)
