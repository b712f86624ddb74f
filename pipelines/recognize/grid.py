"""A table's rows and columns from where its words stand, for tables that are too large for the structure model.

Invariant: pure; every word is in exactly one cell, HTML is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipelines.layout.aligned import is_figure
from pipelines.layout.rules import around
from pipelines.recognize.textlayer import join_lines
from pipelines.schema import Box

Placed = tuple[str, Box]  # a word and its place in pixels of the table's crop
Run = list[Placed]

_BLANK = 0.45  # of a word's height: wider white parts cells
_ROW = 0.5  # of the lower height that runs of one row share
_FULL = 0.6  # of the usual number of runs: such rows tell where columns are
_FAR = 2.5  # of a run's height: white that two runs of one cell and row never have between them
_RIVER = 0.3  # of a word's height: white between two columns
_CROSSING = 0.06  # share of rows that may reach across it: heads, long labels
_CENTRED = 0.6  # of a word's height: how far a head may be off the middle of the columns below it
_REACH = 0.25  # of the narrower one: a run that reaches so far into a column has a part of it


def runs(words: Sequence[Placed]) -> list[Run]:
    """Words of one row with no more than a blank between them."""
    found: list[Run] = []
    for word in words:
        last = found[-1][-1][1] if found else None
        if last is not None and _goes_on(last, word[1]):
            found[-1].append(word)
        else:
            found.append([word])
    return found


def _goes_on(last: Box, box: Box) -> bool:
    near = -0.3 * box.height < box.x0 - last.x1 < _BLANK * max(box.height, last.height)
    return near and min(last.y1, box.y1) - max(last.y0, box.y0) > 0.6 * min(last.height, box.height)


def contradictions(cells: Sequence[Sequence[Run]]) -> float:
    """Share of runs that a structure puts into one cell though they cannot be: two figures, or two runs far apart in a row."""
    total = sum(len(cell) for cell in cells)
    wrong = 0
    for cell in cells:
        figures = [run for run in cell if is_figure(_text(run))]
        if len(figures) > 1 and len(figures) == len(cell):
            wrong += len(figures) - 1
            continue
        for row in _rows(cell):
            boxes = [around([box for _, box in run]) for run in row]
            wrong += sum(right.x0 - left.x1 > _FAR * right.height for left, right in pairwise(boxes))
    return wrong / total if total else 0.0


def grid_html(words: Sequence[Placed]) -> str:
    """`<table>...</table>`: a row for each row of text, a column for each stretch between rivers of white; "" for what has
    a single row or column: that is no table."""
    rows = _rows(runs(words))
    columns = _columns(rows) if len(rows) > 1 else []
    if len(columns) < 2:
        return ""
    heads = next((i for i, row in enumerate(rows) if any(is_figure(_text(run)) for run in row[1:])), 0)
    return "<table>" + "".join(_row_html(row, columns, i < heads) for i, row in enumerate(rows)) + "</table>"


def _rows(found: Sequence[Run]) -> list[list[Run]]:
    rows: list[list[Run]] = []
    for run in sorted(found, key=lambda r: sum(around([b for _, b in r])[1::2])):
        box = around([b for _, b in run])
        last = around([b for r in rows[-1] for _, b in r]) if rows else None
        if last is not None and min(last.y1, box.y1) - max(last.y0, box.y0) > _ROW * min(last.height, box.height):
            rows[-1].append(run)
        else:
            rows.append([run])
    return [sorted(row, key=lambda r: r[0][1].x0) for row in rows]


def _columns(rows: Sequence[Sequence[Run]]) -> list[tuple[float, float]]:
    """Intervals (left, right) of columns: where hardly any row has text, one ends."""
    many = float(np.percentile([len(row) for row in rows], 75))
    full = [row for row in rows if len(row) >= max(2.0, _FULL * many)] or rows  # heads and headings of groups reach across
    boxes = [[around([box for _, box in run]) for run in row] for row in full]
    every = [box for row in boxes for box in row]
    start, end = int(min(box.x0 for box in every)), int(max(box.x1 for box in every)) + 1
    covered = np.zeros(end - start + 1, np.int32)
    for row in boxes:
        mask = np.zeros(end - start + 1, bool)
        for box in row:
            mask[int(box.x0) - start : max(int(box.x0) + 1, int(box.x1)) - start] = True
        covered += mask
    white = covered <= _CROSSING * len(boxes)
    least = max(2.0, _RIVER * float(np.median([box.height for box in every])))
    columns: list[tuple[float, float]] = []
    at = 0
    while at < len(white):
        stop = at
        while stop < len(white) and white[stop] == white[at]:
            stop += 1
        if not white[at]:
            columns.append((start + at, start + stop))
        elif columns and stop - at < least and stop < len(white):  # too narrow: the column goes on
            left, _ = columns.pop()
            at = stop
            while stop < len(white) and not white[stop]:
                stop += 1
            columns.append((left, start + stop))
        at = stop
    return columns


def _row_html(row: Sequence[Run], columns: Sequence[tuple[float, float]], is_head: bool) -> str:
    cells: dict[tuple[int, int], list[Run]] = {}
    for run in row:
        for part in _parts(run, columns):
            first, last = _span(around([box for _, box in part]), columns)
            while (taken := next((k for k in cells if k[0] <= last and first <= k[1]), None)) is not None:
                first, last = min(first, taken[0]), max(last, taken[1])
                part = [word for other in cells.pop(taken) for word in other] + part
            cells[first, last] = [part]
    if is_head:
        cells = _centred(cells, columns)
    out, at = "", 0
    for (first, last), held in sorted(cells.items()):
        out += "<td></td>" * (first - at)
        wide = f' colspan="{last - first + 1}"' if last > first else ""
        out += f"<td{wide}>{html.escape(cell_text(held))}</td>"
        at = last + 1
    return f"<tr>{out}{'<td></td>' * (len(columns) - at)}</tr>"


def _centred(cells: dict[tuple[int, int], list[Run]], columns: Sequence[tuple[float, float]]) -> dict[tuple[int, int], list[Run]]:
    """Heads spread over the empty columns that they are centred above."""
    done: dict[tuple[int, int], list[Run]] = {}
    spans = sorted(cells)
    for number, (first, last) in enumerate(spans):
        box = around([b for run in cells[first, last] for _, b in run])
        low = spans[number - 1][1] + 1 if number else 1  # the first column holds names of rows
        high = spans[number + 1][0] - 1 if number + 1 < len(spans) else len(columns) - 1
        best = first, last
        for left in range(min(low, first), first + 1):
            for right in range(last, max(high, last) + 1):
                middle = (columns[left][0] + columns[right][1]) / 2
                if abs(middle - (box.x0 + box.x1) / 2) < _CENTRED * box.height and right - left > best[1] - best[0]:
                    best = left, right
        if any(k[0] <= best[1] and best[0] <= k[1] for k in done):
            best = first, last
        done[best] = cells[first, last]
    return done


def _parts(run: Run, columns: Sequence[tuple[float, float]]) -> list[Run]:
    """A run of figures by column; one of words stays whole and spans."""
    if len(run) < 2 or not all(is_figure(text) for text, _ in run):
        return [run]
    parts: list[Run] = []
    for word in run:
        if parts and _span(parts[-1][-1][1], columns) == _span(word[1], columns):
            parts[-1].append(word)
        else:
            parts.append([word])
    return parts


def _span(box: Box, columns: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """First and last column that a box has a part of; the nearest where it has none."""
    reached = [
        i
        for i, (left, right) in enumerate(columns)
        if min(box.x1, right) - max(box.x0, left) > _REACH * min(box.width, right - left)
    ]
    if reached:
        return reached[0], reached[-1]
    middle = (box.x0 + box.x1) / 2
    nearest = min(range(len(columns)), key=lambda i: max(columns[i][0] - middle, middle - columns[i][1]))
    return nearest, nearest


def cell_text(held: Sequence[Run]) -> str:
    """Runs of a cell, by row and from left to right."""
    rows: list[list[Placed]] = []
    for word in sorted((word for run in held for word in run), key=lambda w: w[1].y0):
        middle = (word[1].y0 + word[1].y1) / 2
        if rows and middle < rows[-1][0][1].y1:
            rows[-1].append(word)
        else:
            rows.append([word])
    return join_lines([" ".join(text for text, _ in sorted(row, key=lambda w: w[1].x0)) for row in rows])


def _text(run: Run) -> str:
    return " ".join(text for text, _ in run)
