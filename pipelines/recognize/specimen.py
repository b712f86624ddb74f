"""Two pages that are drawn here and whose truth is known: what a model is tried on before it reads an archive.

Invariant: drawn by Pillow with the font that it carries, so the same everywhere; regions are exact, no layout model is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.config import PaddleOcrVlConfig
from pipelines.recognize.base import Crop
from pipelines.recognize.crops import plan_crops
from pipelines.schema import Box, RasterPage, Region

_WIDTH, _HEIGHT = 900, 640
_TEXTS: tuple[tuple[int, tuple[str, ...]], ...] = (  # size in pixels, lines
    (28, ("Annual Report 2026",)),
    (24, ("The harbour office counted 1,482 ships.", "Each paid its dues: 37.50 a day,", "or less after the storm.")),
    (20, ("Invoice No. 20455", "Date: 14/03/2026")),
    (22, ("Section 3. Results of the second quarter",)),
    (24, ("Paid in full",)),
    (22, ("Most people find the long way home;", "some know a better one.")),
)
_TABLES = (
    (("Month", "Ships", "Paid"), ("June", "412", "15,450"), ("July", "530", "19,875"), ("August", "540", "20,250")),
    (("Code", "Price"), ("AB-120", "4.75"), ("CD-77", "12.00")),
)


@dataclass(slots=True, frozen=True)
class Specimen:
    page: RasterPage
    regions: list[Region]
    truths: tuple[str, ...]  # of each region: text, or OTSL

    def crops(self, options: PaddleOcrVlConfig) -> list[tuple[Crop, str]]:
        """The questions that the page raises, each with its truth; paragraphs are not joined."""
        plain = options.model_copy(update={"merge_layout_blocks": False, "strict_parity": False})
        return [(crop, self.truths[crop.regions[0]]) for crop in plan_crops(self.page, self.regions, plain)]


def specimens() -> list[Specimen]:
    return [_letter(), _tables()]


def _sheet() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    return sheet, ImageDraw.Draw(sheet)


def _page(sheet: Image.Image, regions: list[Region], truths: Sequence[str]) -> Specimen:
    page = RasterPage(np.asarray(sheet), 144.0, _WIDTH / 2, _HEIGHT / 2)
    return Specimen(page, regions, tuple(truths))


def _letter() -> Specimen:
    sheet, draw = _sheet()
    regions, truths, y = [], [], 30
    for size, lines in _TEXTS:
        font, pitch = ImageFont.load_default(size), round(1.35 * size)
        for nth, line in enumerate(lines):
            draw.text((40, y + nth * pitch), line, fill="black", font=font)
        wide = max(font.getlength(line) for line in lines)
        box = Box(36, y - 2, 46 + wide, y + pitch * (len(lines) - 1) + round(1.25 * size) + 2)
        regions.append(Region("text", box, 1.0, "text"))
        truths.append("\n".join(lines))
        y += pitch * len(lines) + 40
    return _page(sheet, regions, truths)


def _tables() -> Specimen:
    sheet, draw = _sheet()
    font, tall, wide = ImageFont.load_default(22), 38, 130
    regions, truths, y = [], [], 40
    for rows in _TABLES:
        right, bottom = 40 + wide * len(rows[0]), y + tall * len(rows)
        for r in range(len(rows) + 1):
            draw.line([(40, y + r * tall), (right, y + r * tall)], fill="black")
        for c in range(len(rows[0]) + 1):
            draw.line([(40 + c * wide, y), (40 + c * wide, bottom)], fill="black")
        for r, row in enumerate(rows):
            for c, text in enumerate(row):
                draw.text((50 + c * wide, y + r * tall + 6), text, fill="black", font=font)
        regions.append(Region("table", Box(36, y - 4, right + 5, bottom + 5), 1.0, "table"))
        truths.append("".join("".join(f"<fcel>{text}" for text in row) + "<nl>" for row in rows))
        y = bottom + 60
    return _page(sheet, regions, truths)
