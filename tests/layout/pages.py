"""Pages that the layout tests draw themselves: words at places, rules, bars; one pixel a point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.layout.lines import TextLine
from pipelines.schema import Box, RasterPage

WIDTH, HEIGHT, SIZE = 600, 800, 10.0

PROSE = (
    "The harbour ledger was kept in a room above the chandlery and every",
    "evening the clerk climbed the stairs with the tally of the day to write",
    "down which boats had come in and what they had brought from the banks",
    "so that the market could open at dawn with prices that all could trust",
)


def line(text: str, x: float, y: float, size: float = SIZE, bold: bool = False) -> TextLine:
    """A line of text whose letters are half as wide as high, and its blanks a third."""
    at, words = x, []
    for word in text.split():
        words.append((word, Box(at, y, at + 0.5 * size * len(word), y + size)))
        at += 0.5 * size * len(word) + 0.3 * size
    return TextLine(tuple(words), Box(x, y, words[-1][1].x1, y + size), size, bold)


def prose(x: float, y: float, rows: int = 4, letters: int = 72) -> list[TextLine]:
    """Lines of a paragraph, 14 apart."""
    return [line(PROSE[row % 4][:letters], x, y + 14 * row) for row in range(rows)]


def table(x: float, y: float, rows: Sequence[Sequence[str]], column: float = 90, row: float = 16) -> list[TextLine]:
    return [line(text, x + column * c, y + row * r) for r, cells in enumerate(rows) for c, text in enumerate(cells) if text]


def page(rules: Sequence[Box] = (), filled: Sequence[Box] = ()) -> RasterPage:
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for box in (*rules, *filled):
        pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 40
    return RasterPage(pixels, 72, WIDTH, HEIGHT)


def grid(box: Box, rows: int, columns: int) -> list[Box]:
    """Rules of a table, one pixel thick."""
    across = [box.y0 + box.height * r / rows for r in range(rows + 1)]
    down = [box.x0 + box.width * c / columns for c in range(columns + 1)]
    return [Box(box.x0, y, box.x1, y + 1) for y in across] + [Box(x, box.y0, x + 1, box.y1) for x in down]
