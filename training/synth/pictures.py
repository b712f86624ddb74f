"""Lines, paragraphs, tables and formulas, each a picture with its truth as tokens of the small model's vocabulary.

Invariant: the answer is what a PaddleOCR-VL says for such a picture: text with line breaks, OTSL for a table, LaTeX
between `\\[` and `\\]` for a formula; and each character of it that was drawn knows its place in the picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.recognize.base import Task
from training.synth import texts
from training.synth.canvas import Grey, Pen, Sheet
from training.synth.faces import TRAINED, Face

Place = tuple[float, float] | None


@dataclass(slots=True)
class Picture:
    pixels: Grey  # (height, width)
    task: Task
    tokens: list[str]  # the answer, in pieces that are one token each
    places: list[Place] = field(default_factory=list)  # centre of each drawn character, x and y in pixels

    @property
    def answer(self) -> str:
        return "".join(self.tokens)


@dataclass(slots=True, frozen=True)
class Limits:
    """What may be drawn: grows while a model learns."""

    longest: int = 40  # characters in a line
    smallest: int = 14  # pixels to the em
    largest: int = 28
    lines: int = 4
    cells: int = 4  # rows and columns of a table
    disorder: float = 0.25
    faces: tuple[Face, ...] = TRAINED
    folder: Path | None = None
    small: float = 0.0  # share of pictures in small type, up to `_SMALL` pixels, beside those that are so by chance
    even: bool = False  # every face as often as any other
    shaped: bool = False  # half of the pictures with ligatures, a third with letters spaced wider or narrower


_SMALL = 18


def _pen(rng: random.Random, limits: Limits, faces: Sequence[Face] | None = None) -> Pen:
    faces = faces or limits.faces
    face = rng.choices(faces, None if limits.even else [f.weight for f in faces])[0]
    scale = rng.choices((1, 2), (0.45, 0.55))[0]
    largest = _SMALL if limits.small and rng.random() < limits.small else limits.largest
    half_pixels = rng.randint(limits.smallest * 2, largest * 2)
    size = half_pixels / 2 if scale == 2 else half_pixels // 2
    if not limits.shaped:
        return Pen(face, size, scale, limits.folder)
    tracking = size * rng.uniform(-0.03, 0.05) if rng.random() < 0.33 else 0.0
    return Pen(face, size, scale, limits.folder, rng.random() < 0.5, tracking)


def _margins(rng: random.Random, size: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what a cropping step leaves around ink: little, mostly."""
    most = size * rng.choice((0.15, 0.35, 0.6))
    left, top, right, bottom = (rng.uniform(0, most) for _ in range(4))
    return left + 1, top, right + 1, bottom


def line(rng: random.Random, limits: Limits) -> Picture:
    return _lines(rng, limits, 1)


def paragraph(rng: random.Random, limits: Limits) -> Picture:
    return _lines(rng, limits, rng.randint(2, max(2, limits.lines)))


def _lines(rng: random.Random, limits: Limits, count: int) -> Picture:
    pen = _pen(rng, limits)
    longest = rng.randint(1, limits.longest) if count == 1 else rng.randint(min(6, limits.longest), limits.longest)
    rows = [texts.line(rng, longest, limits.disorder)]
    while len(rows) < count:
        shorter = rng.randint(1, longest) if len(rows) == count - 1 or rng.random() < 0.15 else longest
        rows.append(texts.line(rng, shorter, limits.disorder))
    left, top, right, bottom = _margins(rng, pen.size)
    pitch = pen.size * rng.uniform(1.08, 1.5)
    widths = [pen.width(row) for row in rows]
    width = left + max(widths) + right
    ascent, descent = pen.size * rng.uniform(0.75, 0.95), pen.size * rng.uniform(0.22, 0.3)
    sheet = Sheet(width, top + ascent + pitch * (count - 1) + descent + bottom, pen.scale)
    align = rng.choices((0.0, 0.5, 1.0), (0.86, 0.1, 0.04))[0] if count > 1 else 0.0
    tokens: list[str] = []
    places: list[Place] = []
    for nth, (row, length) in enumerate(zip(rows, widths, strict=True)):
        if nth:
            tokens.append("\n")
            places.append(places[-1])
        x = left + align * (max(widths) - length)
        tokens += row
        places += sheet.text(pen, x, top + ascent + nth * pitch, row)
    return Picture(sheet.finish(rng), "ocr", tokens, places)


# -- tables ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Cell:
    text: str
    down: int = 1  # rows that it covers
    across: int = 1


def _grid(rng: random.Random, rows: int, columns: int) -> dict[tuple[int, int], _Cell]:
    """Cells by (row, column) of their first corner; a few tables have one that covers two."""
    cells = {(r, c): _Cell("" if rng.random() < 0.08 else texts.cell(rng)) for r in range(rows) for c in range(columns)}
    if rng.random() < 0.15 and (rows > 1 or columns > 1):
        down = rows > 1 and (columns == 1 or rng.random() < 0.4)
        r, c = rng.randrange(rows - down), rng.randrange(columns - (not down))
        cells[r, c] = _Cell(texts.cell(rng), 1 + down, 1 + (not down))
        del cells[r + down, c + (not down)]
    return cells


def table(rng: random.Random, limits: Limits) -> Picture:
    rows, columns = rng.randint(1, limits.cells), rng.randint(1, limits.cells)
    if rows * columns == 1:
        columns = 2
    pen = _pen(rng, limits)
    cells = _grid(rng, rows, columns)
    pad = pen.size * rng.uniform(0.25, 0.8)
    widths = [2 * pad + _widest(pen, cells, column) for column in range(columns)]
    height = pen.size * rng.uniform(1.3, 1.9)
    left, top, right, bottom = _margins(rng, pen.size)
    xs = [left + sum(widths[:c]) for c in range(columns + 1)]
    ys = [top + r * height for r in range(rows + 1)]
    sheet = Sheet(xs[-1] + right + 1, ys[-1] + bottom + 1, pen.scale)
    _rules(rng, sheet, cells, xs, ys)
    aligns = [rng.choice((0.0, 0.0, 0.5, 1.0)) for _ in range(columns)]
    drawn: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for (r, c), cell in cells.items():
        room = xs[c + cell.across] - xs[c] - 2 * pad - pen.width(cell.text)
        baseline = (ys[r] + ys[r + cell.down]) / 2 + 0.35 * pen.size
        drawn[r, c] = sheet.text(pen, xs[c] + pad + aligns[c] * room, baseline, cell.text)
    tokens, places = _otsl(cells, drawn, rows, columns)
    return Picture(sheet.finish(rng), "table", tokens, places)


def _widest(pen: Pen, cells: dict[tuple[int, int], _Cell], column: int) -> float:
    """Of the texts in a column; one that lies over two counts half."""
    held = [cell for (_, c), cell in cells.items() if c <= column < c + cell.across]
    return max([pen.width(cell.text) / cell.across for cell in held] + [pen.size])


def _rules(rng: random.Random, sheet: Sheet, cells: dict[tuple[int, int], _Cell], xs: list[float], ys: list[float]) -> None:
    """Every cell boxed, or horizontal rules alone (then only where no cell would be cut)."""
    thick = rng.choice((0.8, 1.0, 1.0, 1.6))
    boxed = rng.random() < 0.75 or any(cell.down > 1 or cell.across > 1 for cell in cells.values())
    if not boxed:
        for nth, y in enumerate(ys):
            if nth in (0, 1, len(ys) - 1) or thick < 1:
                sheet.rule(xs[0], y, xs[-1], y, thick)
        return
    for (r, c), cell in cells.items():
        x0, x1, y0, y1 = xs[c], xs[c + cell.across], ys[r], ys[r + cell.down]
        sheet.rule(x0, y0, x1, y0, thick)
        sheet.rule(x0, y1, x1, y1, thick)
        sheet.rule(x0, y0, x0, y1, thick)
        sheet.rule(x1, y0, x1, y1 + thick, thick)


def _otsl(
    cells: dict[tuple[int, int], _Cell], drawn: dict[tuple[int, int], list[tuple[float, float]]], rows: int, columns: int
) -> tuple[list[str], list[Place]]:
    tokens: list[str] = []
    places: list[Place] = []
    covered = {
        (r + dr, c + dc): "<ucel>" if dr else "<lcel>"
        for (r, c), cell in cells.items()
        for dr in range(cell.down)
        for dc in range(cell.across)
        if dr or dc
    }
    for r in range(rows):
        for c in range(columns):
            if (r, c) in covered:
                tokens.append(covered[r, c])
                places.append(None)
                continue
            cell = cells[r, c]
            tokens += ["<fcel>" if cell.text else "<ecel>", *cell.text]
            places += [None, *drawn[r, c]]
        tokens.append("<nl>")
        places.append(None)
    return tokens, places
