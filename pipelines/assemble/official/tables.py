"""Tables that cross pages become one, by the rules of the official pipeline. The only user of `bs4`.

Invariant: raises for no content, however malformed; a table that was taken into the one before it stays as an empty block
that names it as its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pipelines.assemble.official.page import OfficialBlock

_BEHIND = frozenset({"footer", "vision_footnote", "number", "footnote", "footer_image", "seal"})
_BEFORE = frozenset({"header", "header_image", "number", "seal"})
_WIDTHS = 0.1  # difference of the widths over the narrower
_HEAD_ROWS = 5
_MOST_TABLES = 64  # in one content: a model that loops nests thousands, and each row would be searched through all below it
_MOST_SPAN = 1000  # a model may write any number


def merge_tables(pages: Sequence[Sequence[OfficialBlock]], strict: bool = False) -> None:
    """Changes content and groups of the blocks in place; they must be numbered (`global_block`).

    Args:
        strict: let a table without rows swallow the next one, as the official code does.
    """
    for above, below in reversed(list(pairwise(pages))):
        last = next((i for i in reversed(range(len(above))) if above[i].label == "table"), None)
        first = next((i for i in range(len(below)) if below[i].label == "table"), None)
        if last is None or first is None:
            continue
        if not all(block.label in _BEHIND for block in above[last + 1 :]):
            continue
        if all(block.label in _BEFORE for block in below[:first]):
            _merge(above[last], below[first], strict)
    every = {block.global_block: block for page in pages for block in page}
    for block in every.values():
        if block.global_group != block.global_block:
            block.global_group = every[block.global_group].global_group


def _merge(above: OfficialBlock, below: OfficialBlock, strict: bool) -> None:
    wide, wide_below = above.box[2] - above.box[0], below.box[2] - below.box[0]
    if not wide or not wide_below or abs(wide_below - wide) / min(wide_below, wide) >= _WIDTHS:
        return
    if not above.content or not below.content:
        return
    joined = joined_table(above.content, below.content, strict)
    if joined is not None:
        above.content, below.content = joined, ""
        below.global_group = above.global_block


def joined_table(above: str, below: str, strict: bool = False) -> str | None:
    """One table of two whose columns fit, the second without the head that repeats the first's; else None."""
    from bs4 import BeautifulSoup

    if max(above.count("<table"), below.count("<table")) > _MOST_TABLES:
        return None
    soup, more = BeautifulSoup(above, "html.parser"), BeautifulSoup(below, "html.parser")
    rows, rows_below = soup.find_all("tr"), more.find_all("tr")
    if not rows and (rows_below or not strict):
        return None
    head = _head_rows(rows, rows_below)
    data = rows_below[head] if head < len(rows_below) else None
    fits = _columns(rows) == _columns(rows_below)
    if not fits and rows and data is not None:
        last = rows[-1]
        fits = _spanned(last) == _spanned(data) or len(_cells(last)) == len(_cells(data))
    if not fits:
        return None
    parent = rows[-1].parent if rows else None
    for row in rows_below[head:]:
        assert parent is not None
        parent.append(row.extract())
    return str(soup)


def _cells(row: Any) -> list[Any]:
    return list(row.find_all(["td", "th"]))


def _span(cell: Any, name: str) -> int:
    try:
        return min(_MOST_SPAN, int(cell.get(name, 1)))
    except ValueError:
        return 1


def _spanned(row: Any) -> int:
    return sum(_span(cell, "colspan") for cell in _cells(row))


def _columns(rows: Sequence[Any]) -> int:
    """Columns of the whole grid, cells that reach down from rows above included."""
    taken: dict[int, set[int]] = {}
    most = 0
    for r, row in enumerate(rows):
        column = 0
        for cell in _cells(row):
            while column in taken.get(r, ()):
                column += 1
            across = _span(cell, "colspan")
            for below in range(r, min(len(rows), r + _span(cell, "rowspan"))):
                taken.setdefault(below, set()).update(range(column, column + across))
            column += across
            most = max(most, column)
    return most


def _head_rows(above: Sequence[Any], below: Sequence[Any]) -> int:
    """Leading rows that the second table repeats."""
    count = 0
    for one, other in zip(above[:_HEAD_ROWS], below, strict=False):
        if [_seen(cell) for cell in _cells(one)] != [_seen(cell) for cell in _cells(other)]:
            break
        count += 1
    return count


def _seen(cell: Any) -> tuple[str, int]:
    """What a reader sees of a cell: width does not matter, nor do spaces."""
    text = "".join(chr(ord(c) - 0xFEE0) if 0xFF01 <= ord(c) <= 0xFF5E else c for c in cell.get_text())
    return "".join(text.split()), _span(cell, "colspan")
