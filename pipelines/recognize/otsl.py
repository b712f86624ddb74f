"""Tables as a model writes them (OTSL: one tag a cell, `<nl>` ends a row) to HTML.

Invariant: pure, never raises; what has no cell gives "". The official converter takes the tag that follows for the text of
an empty `<fcel>`, and sometimes raises over it; by default an empty `<fcel>` is an empty cell, and text behind an `<ecel>`
is that cell's.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

_TAG = re.compile(r"(<(?:fcel|ecel|lcel|ucel|xcel|nl)>)")
_ACROSS, _DOWN = frozenset({"<lcel>", "<xcel>"}), frozenset({"<ucel>", "<xcel>"})
_MOST = 100_000  # cells of one table: beyond it a model looped, and the square that would hold its rows is nonsense


@dataclass(slots=True)
class _Row:
    tags: list[str]
    texts: list[str]  # what follows each tag, stripped


@dataclass(slots=True, frozen=True)
class _Cell:
    row: int
    column: int
    rows: int
    columns: int
    text: str


def otsl_to_html(otsl: str, strict: bool = False) -> str:
    """`<table>...</table>`, or "" where no cell is.

    Args:
        strict: with the official converter's mistakes, save that nothing raises.
    """
    rows = _rows(otsl.strip(), strict)
    width = max((len(row.tags) for row in rows), default=0)
    if not strict and len(rows) * width > _MOST:
        return ""
    cells: list[_Cell] | None = None
    if strict:
        cells = _official_cells(rows)
    return _html(_cells(rows) if cells is None else cells, len(rows), width)


def is_ragged(otsl: str) -> bool:
    """Whether rows had to be cut or filled to make a table of them."""
    rows = _lines(otsl.strip())
    return len({len(row.tags) for row in rows}) > 1


def _lines(otsl: str) -> list[_Row]:
    rows: list[_Row] = []
    for line in otsl.split("<nl>"):
        parts = _TAG.split(line)
        if len(parts) > 1:
            rows.append(_Row(parts[1::2], [part.strip() for part in parts[2::2]]))
    return rows


def _rows(otsl: str, strict: bool) -> list[_Row]:
    """Rows of equal length: of all lengths that lose no filled cell, the least that changes the rows least."""
    rows = _lines(otsl)
    if "<nl>" not in otsl:
        if strict and rows and _TAG.split(otsl)[0].strip():
            rows[0].texts = [""] * len(rows[0].texts)  # text before the first tag makes the official code lose all text
        return rows
    if not rows:
        return []
    lengths = [len(row.tags) for row in rows]
    least = max(_last_filled(row, strict) for row in rows)
    width = min(range(least, max(*lengths, least) + 1), key=lambda w: sum(abs(length - w) for length in lengths))
    for row in rows:
        missing = max(0, width - len(row.tags))
        row.tags = row.tags[:width] + ["<ecel>"] * missing
        row.texts = row.texts[:width] + [""] * missing
    return rows


def _last_filled(row: _Row, strict: bool) -> int:
    """Cells of a row up to the last that may hold something."""
    filled = [
        tag == "<fcel>" or (not strict and tag == "<ecel>" and bool(text)) for tag, text in zip(row.tags, row.texts, strict=True)
    ]
    return len(filled) - filled[::-1].index(True) if True in filled else 0


def _cells(rows: list[_Row]) -> list[_Cell]:
    found = []
    for r, row in enumerate(rows):
        for c, tag in enumerate(row.tags):
            if tag in ("<fcel>", "<ecel>"):
                found.append(_Cell(r, c, 1 + _below(rows, r, c), 1 + _right(row, c), row.texts[c]))
    return found


def _official_cells(rows: list[_Row]) -> list[_Cell] | None:
    """Cells as the official code finds them: it looks for a neighbour in the flow of tags and texts, where an empty `<fcel>`
    shifts everything by one. None where it raises."""
    flow: list[str] = []
    starts: list[tuple[int, int, int]] = []
    for r, row in enumerate(rows):
        for c, (tag, text) in enumerate(zip(row.tags, row.texts, strict=True)):
            starts.append((len(flow), r, c))
            flow += [tag, text] if text else [tag]
        flow.append("<nl>")
    found = []
    for at, r, c in starts:
        if flow[at] not in ("<fcel>", "<ecel>"):
            continue
        filled = flow[at] == "<fcel>"
        neighbour = flow[at + 1 + filled] if at + 1 + filled < len(flow) else ""
        if neighbour in _ACROSS and c + 1 >= len(rows[r].tags):
            return None
        across = _right(rows[r], c) if neighbour in _ACROSS else 0
        found.append(_Cell(r, c, 1 + _below(rows, r, c), 1 + across, flow[at + 1] if filled else ""))
    return found


def _right(row: _Row, column: int) -> int:
    """How many cells to the right go on this one."""
    end = column + 1
    while end < len(row.tags) and row.tags[end] in _ACROSS:
        end += 1
    return end - column - 1


def _below(rows: list[_Row], row: int, column: int) -> int:
    end = row + 1
    while end < len(rows) and column < len(rows[end].tags) and rows[end].tags[column] in _DOWN:
        end += 1
    return end - row - 1


def _html(cells: list[_Cell], rows: int, columns: int) -> str:
    """Later cells lie over the spans of earlier ones; one whose corner is covered is not written; a gap is an empty cell."""
    if not cells:
        return ""
    grid: list[list[_Cell | None]] = [[None] * columns for _ in range(rows)]
    for cell in cells:
        for r in range(cell.row, min(rows, cell.row + cell.rows)):
            for c in range(cell.column, min(columns, cell.column + cell.columns)):
                grid[r][c] = cell
    out: list[str] = []
    for r, line in enumerate(grid):
        out.append("<tr>")
        out += [_td(cell) for c, cell in enumerate(line) if cell is None or (cell.row, cell.column) == (r, c)]
        out.append("</tr>")
    return f"<table>{''.join(out)}</table>"


def _td(cell: _Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    rows = f' rowspan="{cell.rows}"' if cell.rows > 1 else ""
    columns = f' colspan="{cell.columns}"' if cell.columns > 1 else ""
    return f"<td{rows}{columns}>{html.escape(cell.text)}</td>"
