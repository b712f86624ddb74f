"""Lines of text with their places: what the rules of layout work on, whether they come from a text layer or from pixels.

Invariant: pure. Every word is in exactly one line; a line never crosses a gap as wide as one between columns. All places are
in pixels of the page.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import bidirectional, east_asian_width

from pipelines.layout.rules import around
from pipelines.schema import Box, RasterPage, Word

COLUMN_GAP = 1.5  # of the font size: a wider gap ends a line; justified text stays below 1
_JOIN_GAP = 0.7  # of the font size: a narrower one joins what a change of font or baseline had cut
_SAME_ROW = 0.5  # of the lower height that two boxes must share to stand in one row


@dataclass(slots=True, frozen=True)
class TextLine:
    """A run of words in one row of one column."""

    words: tuple[tuple[str, Box], ...]
    box: Box
    size: float  # height of the font, pixels
    bold: bool = False
    confidence: float | None = None  # of a recognizer

    @property
    def text(self) -> str:
        return " ".join(text for text, _ in self.words)

    @property
    def middle(self) -> float:
        return (self.box.y0 + self.box.y1) / 2


def lines_of(page: RasterPage) -> list[TextLine]:
    """The lines of a page's visible text layer, in the layer's order."""
    grouped: dict[int, list[Word]] = {}
    for word in page.words:
        grouped.setdefault(word.line, []).append(word)
    found = [line for words in grouped.values() for line in _cut(words, page.scale)]
    return join(found)


def _cut(words: Sequence[Word], scale: float) -> list[TextLine]:
    """One line of the layer as runs without wide gaps."""
    runs: list[list[Word]] = [[words[0]]]
    for word in words[1:]:
        before = runs[-1][-1]
        apart = max(word.box.x0 - before.box.x1, before.box.x0 - word.box.x1)
        if apart > COLUMN_GAP * max(word.size, 1.0) or not same_row(before.box, word.box):
            runs.append([])
        runs[-1].append(word)
    return [_line(run, scale) for run in runs]


def _line(words: Sequence[Word], scale: float) -> TextLine:
    letters = sum(len(word.text) for word in words)
    bold = sum(len(word.text) for word in words if word.bold)
    placed = tuple((word.text, word.box.scaled(scale)) for word in words)
    size = max(words, key=lambda word: len(word.text)).size * scale
    return TextLine(placed, around([box for _, box in placed]), size, bold > 0.6 * letters)


def join(lines: Sequence[TextLine]) -> list[TextLine]:
    """Runs that stand in one row and nearly touch become one line."""
    done: list[TextLine] = []
    for line in lines:
        for index in range(len(done) - 1, max(-1, len(done) - 40), -1):  # what belongs together is near in the layer too
            if _touch(done[index], line):
                done[index] = merged([done[index], line])
                break
        else:
            done.append(line)
    return done


def _touch(one: TextLine, other: TextLine) -> bool:
    apart = max(one.box.x0 - other.box.x1, other.box.x0 - one.box.x1)
    size = max(one.size, other.size)
    return -0.5 * size < apart < _JOIN_GAP * size and same_row(one.box, other.box) and not (is_upright(one) or is_upright(other))


def is_upright(line: TextLine) -> bool:
    """Whether the line runs from top to bottom or back."""
    return len(line.text) > 2 and line.box.height > 2 * line.box.width


def merged(lines: Sequence[TextLine]) -> TextLine:
    """Lines of one row as one, words in the order in which they are read."""
    words = sorted((word for line in lines for word in line.words), key=lambda word: word[1].x0)
    if runs_left("".join(text for text, _ in words)):
        words.reverse()
    longest = max(lines, key=lambda line: len(line.text))
    sure = [line.confidence for line in lines if line.confidence is not None]
    return TextLine(tuple(words), around([line.box for line in lines]), longest.size, longest.bold, min(sure) if sure else None)


def is_cjk(char: str) -> bool:
    """Whether a letter is of a script without blanks, as wide as high; Korean has blanks."""
    return east_asian_width(char) in "WF" and not "\uac00" <= char <= "\ud7a3"


def runs_left(text: str) -> bool:
    """Whether most letters are of a script that is written from right to left."""
    ways = [bidirectional(char) for char in text if char.isalpha()]
    return sum(way in ("R", "AL") for way in ways) > 0.5 * len(ways)


def same_row(one: Box, other: Box) -> bool:
    shared = min(one.y1, other.y1) - max(one.y0, other.y0)
    return shared > _SAME_ROW * min(one.height, other.height)


def rows_of(lines: Iterable[TextLine]) -> list[list[TextLine]]:
    """Lines by row, from top to bottom, each row from left to right; lines printed over each other are rows of their own."""
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda found: (found.middle, found.box.x0)):
        if rows and line.middle < _floor(rows[-1]) and not any(_over(line, other) for other in rows[-1]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda found: found.box.x0) for row in rows]


def _over(one: TextLine, other: TextLine) -> bool:
    shared = min(one.box.x1, other.box.x1) - max(one.box.x0, other.box.x0)
    return shared > 0.3 * min(one.box.width, other.box.width)


def _floor(row: Sequence[TextLine]) -> float:
    """Below it a middle is in the next row: a quarter above the bottom of the row's first line."""
    return row[0].box.y1 - 0.25 * row[0].box.height


def body_size(lines: Sequence[TextLine]) -> float:
    """The font size that most letters of a page have; pixels, 1 for a page without text."""
    sizes = [line.size for line in lines for _ in range(0, len(line.text), 8)]
    return max(1.0, statistics.median(sizes)) if sizes else 1.0
