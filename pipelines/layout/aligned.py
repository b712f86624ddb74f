"""Tables found by how their text stands: rows whose cells line up in columns, without a rule drawn anywhere.

Invariant: pure. Columns of prose are never a table: their lines are long.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise

from pipelines.layout.cues import is_mark
from pipelines.layout.lines import TextLine, body_size, rows_of
from pipelines.layout.rules import around
from pipelines.schema import Box

_LEAST_ROWS = 3
_RIVER = 0.7  # of the font size: white that all rows share between two columns
_LONG_CELL = 26  # letters; lines of prose in a column have 30 to 60
_MOST_LONG = 0.3  # share of cells that are as long as a line of prose
_MOST_ITEMS = 0.7  # share of rows that are a bullet or a number and a text: more are a list
_NEXT_ROW = 2.6  # of the font size, from the middle of one row to that of the next
_FIGURES = re.compile(r"^[\s(+\-–−~<>=≤≥$€£¥%]*[\d.,:/\s]*\d[\d.,:/\s]*[)%*†‡§a-zA-Z°]{0,3}$")
_NOTHING = re.compile(r"^(?:[-–—.*]+|n/?a|nil|none)$", re.I)
_ENTRY = re.compile(r"^(?=.*[^\W\d_]{3}).*?[\s.…_](?P<page>\d{1,4}|[ivxlc]{1,6})$")
_LEADER = re.compile(r"(?:\.\s?){4,}|…{2,}|_{4,}")


def aligned_tables(lines: Sequence[TextLine], prose: Sequence[Box]) -> list[Box]:
    """Places of tables among lines that no other table holds.

    Args:
        prose: regions of text that a model found; two that stand side by side are columns, not cells.
    """
    size = body_size(lines)
    found = [
        around([line.box for row in run for line in row])
        for run in _runs(rows_of(lines), size)
        if is_tabular([line for row in run for line in row])
    ]
    return [box for box in found if not _spans_columns(box, prose, size)]


def _spans_columns(box: Box, prose: Sequence[Box], size: float) -> bool:
    """Whether a place reaches over two tall regions of text beside each other."""
    touched = [p for p in prose if p.overlap(box) > 0 and p.height > 3.5 * size and p.width > 8 * size]
    return any(
        min(a.y1, b.y1) - max(a.y0, b.y0) > 2 * size and (a.x1 < b.x0 + size or b.x1 < a.x0 + size)
        for i, a in enumerate(touched)
        for b in touched[i + 1 :]
    )


def _runs(rows: Sequence[list[TextLine]], size: float) -> list[list[list[TextLine]]]:
    """Stretches of rows with several cells each; a row with one cell may stand between two of them, wrapped or a heading."""
    runs: list[list[list[TextLine]]] = []
    single: list[list[TextLine]] = []
    before: float | None = None
    for row in rows:
        middle = row[0].middle
        near = before is not None and middle - before < _NEXT_ROW * size
        if len(row) >= 2:
            if runs and near and len(single) <= 1:
                runs[-1] += [*single, row]
            else:
                runs.append([row])
            single = []
        elif runs and near:
            single.append(row)
        else:
            single = [row, row]  # too far away: what follows begins anew
        before = middle
    return [run for run in runs if len(run) >= _LEAST_ROWS]


def is_tabular(lines: Sequence[TextLine]) -> bool:
    """Whether lines stand in columns of short cells, and are no columns of prose and no table of contents."""
    rows = rows_of(lines)
    several = [row for row in rows if len(row) >= 2]
    if len(several) < 2 or len(several) < 0.4 * len(rows):
        return False
    columns = columns_of([line.box for row in several for line in row], body_size(lines))
    if len(columns) < 2 or sum(map(_is_items, several)) > _MOST_ITEMS * len(several):
        return False
    cells = [line.text for row in several for line in row]
    if sum(len(cell) > _LONG_CELL for cell in cells) > _MOST_LONG * len(cells) + (len(columns) == 2):
        return False
    figures = sum(is_figure(cell) for cell in cells) / len(cells)
    if is_contents(rows):
        return False
    if figures > 0.3:
        return True
    middling = statistics.mean(len(cell) for cell in cells)
    return middling < (_LONG_CELL if len(columns) > 2 else 0.7 * _LONG_CELL)


def _is_items(row: Sequence[TextLine]) -> bool:
    """Whether a row is items of lists: marks, each with text to its right."""
    marks, texts = row[::2], row[1::2]
    return (
        len(marks) == len(texts) and all(is_mark(line.text) for line in marks) and not any(is_figure(line.text) for line in texts)
    )


def columns_of(boxes: Sequence[Box], size: float) -> list[tuple[float, float]]:
    """Intervals (left, right) that white through all boxes divides."""
    found: list[tuple[float, float]] = []
    for box in sorted(boxes, key=lambda b: b.x0):
        if found and box.x0 - found[-1][1] < _RIVER * size:
            found[-1] = found[-1][0], max(found[-1][1], box.x1)
        else:
            found.append((box.x0, box.x1))
    return found


def is_figure(text: str) -> bool:
    """A number, an amount, a share, a date, or a sign for none."""
    return bool(_FIGURES.match(text) or _NOTHING.match(text))


def is_contents(rows: Sequence[Sequence[TextLine]]) -> bool:
    """Whether rows are entries of a table of contents: text, and at the right a page number that hardly ever falls."""
    texts = [" ".join(line.text for line in row) for row in rows]
    if len(texts) < 3:
        return False
    entries = [found for found in map(_ENTRY.match, texts) if found]
    if len(entries) < 0.6 * len(texts):
        return False
    leaders = sum(bool(_LEADER.search(text)) for text in texts)
    numbers = [int(found["page"]) for found in entries if found["page"].isdigit()]
    rising = sum(a <= b for a, b in pairwise(numbers))
    if leaders > 0.4 * len(texts):
        return True
    return len(texts) > 3 and len(numbers) > 3 and rising > 0.85 * (len(numbers) - 1) and all(len(row) <= 3 for row in rows)
