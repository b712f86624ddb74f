"""Fresh pictures of fresh texts, drawn by Pillow itself: nothing of the training's own drawing is used.

Kerning, sub-pixel places and rules are Pillow's; texts come from the training's generator with seeds that it never uses.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from training.synth import faces, texts

Pixels = npt.NDArray[np.uint8]


@dataclass(slots=True, frozen=True)
class Render:
    pixels: Pixels  # (height, width, 3)
    prompt: str
    answer: str
    face: str
    size: int


def _font(face: faces.Face, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(io.BytesIO(faces.load(face)), size)


def _sheet(width: float, height: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (max(1, round(width)), max(1, round(height))), "white")
    return sheet, ImageDraw.Draw(sheet)


def _done(sheet: Image.Image, prompt: str, answer: str, face: faces.Face, size: int) -> Render:
    return Render(np.asarray(sheet), prompt, answer, face.name, size)


def line(rng: random.Random, face: faces.Face, size: int) -> Render:
    """1 to 40 characters; a quarter of the lines are random ones."""
    text = texts.line(rng, rng.randint(1, 40), 0.25)
    font, edge = _font(face, size), rng.uniform(1, 0.4 * size)
    sheet, draw = _sheet(font.getlength(text) + 2 * edge, 1.2 * size + 2 * edge)
    draw.text((edge, edge + 0.95 * size), text, fill="black", font=font, anchor="ls")
    return _done(sheet, "OCR:", text, face, size)


def paragraph(rng: random.Random, face: faces.Face, size: int) -> Render:
    """2 to 4 lines of words and numbers."""
    longest = rng.randint(10, 30)
    rows = [texts.line(rng, longest, 0.0) for _ in range(rng.randint(1, 3))]
    rows.append(texts.line(rng, rng.randint(3, longest), 0.0))
    font, edge, pitch = _font(face, size), rng.uniform(1, 0.4 * size), size * rng.uniform(1.15, 1.45)
    sheet, draw = _sheet(max(map(font.getlength, rows)) + 2 * edge, 1.2 * size + pitch * (len(rows) - 1) + 2 * edge)
    for nth, row in enumerate(rows):
        draw.text((edge, edge + 0.95 * size + nth * pitch), row, fill="black", font=font, anchor="ls")
    return _done(sheet, "OCR:", "\n".join(rows), face, size)


def table(rng: random.Random, face: faces.Face, size: int) -> Render:
    """Up to 4 x 4 boxed cells, a few of them empty."""
    rows, columns = rng.randint(2, 4), rng.randint(2, 4)
    cells = [["" if rng.random() < 0.06 else texts.cell(rng) for _ in range(columns)] for _ in range(rows)]
    font, pad, tall, edge = _font(face, size), 0.45 * size, round(1.6 * size), rng.randint(1, 6)
    widths = [round(max(font.getlength(row[c]) for row in cells) + 2 * pad + 0.5 * size) for c in range(columns)]
    sheet, draw = _sheet(sum(widths) + 2 * edge + 1, rows * tall + 2 * edge + 1)
    xs = [edge + sum(widths[:c]) for c in range(columns + 1)]
    for r in range(rows + 1):
        draw.line([(xs[0], edge + r * tall), (xs[-1], edge + r * tall)], fill="black")
    for x in xs:
        draw.line([(x, edge), (x, edge + rows * tall)], fill="black")
    answer = ""
    for r, row in enumerate(cells):
        for c, text in enumerate(row):
            draw.text((xs[c] + pad, edge + r * tall + tall / 2), text, fill="black", font=font, anchor="lm")
            answer += f"<fcel>{text}" if text else "<ecel>"
        answer += "<nl>"
    return _done(sheet, "Table Recognition:", answer, face, size)


KINDS: dict[str, Callable[[random.Random, faces.Face, int], Render]] = {"line": line, "paragraph": paragraph, "table": table}


def fresh(kind: str, count: int, seed: int, seen: bool = True) -> list[Render]:
    """`count` renders at 14 to 28 px, in faces that training has seen, or in those that it has not."""
    rng = random.Random(f"fresh {kind} {seed} {seen}")
    chosen: Any = faces.TRAINED if seen else faces.HELD_OUT
    return [KINDS[kind](rng, rng.choice(chosen), rng.randint(14, 28)) for _ in range(count)]
