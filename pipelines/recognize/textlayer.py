"""The text layer: whether it can be trusted, and which of its words lie in a region.

Invariant: pure. A layer is trusted only for what it shows: hidden text (an OCR layer, a trick) never counts, and one whose
characters cannot be language is refused, so that the page is read from pixels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.config import RecognizeConfig
from pipelines.layout.lines import is_cjk
from pipelines.layout.rules import holds
from pipelines.schema import RasterPage, Region, Word

_MOST_BAD = 0.05  # share of characters that no text has
_LEAST_LETTERS = 0.35  # share of letters, their marks and digits: below it a long layer is noise (a page of rules is short)
_HIDDEN_SHARE = 0.5
_LONG = 40
_FEW = 300  # letters; with more a layer is no mere stamp
_CELL, _CONTRAST = 4, 60  # pixels a side; of 255, from the paper
_MORE = 4.0  # times the ink of the words
_SPARSE = 0.03  # share of cells with ink that is not words: less is a logo or a rule
_LEADERS = re.compile(r"([.…_·\-])\1{3,}")  # of a table of contents, of a form to fill in


def policy(config: RecognizeConfig) -> Literal["prefer", "verify", "off"]:
    """What `text_layer: auto` means: a small OCR is worse than a good text layer, a vision-language model is not."""
    if config.text_layer == "auto":
        return "prefer" if config.engine in ("embedded", "echo") else "verify"
    return config.text_layer


@dataclass(slots=True, frozen=True)
class Trust:
    trusted: bool
    reason: str


def trust(page: RasterPage) -> Trust:
    """Whether the visible words of a page can be taken for its text."""
    text = _LEADERS.sub("", "".join(word.text for word in page.words))
    if not page.words:
        return Trust(False, "hidden layer only" if page.hidden_words else "no text layer")
    hidden = sum(len(word.text) for word in page.hidden_words)
    if hidden > _HIDDEN_SHARE * (len(text) + hidden) and hidden > _LONG:
        return Trust(False, "most of the layer is hidden")
    bad = sum(_is_bad(char) for char in text)
    if bad > _MOST_BAD * len(text):
        return Trust(False, "garbled characters")
    if len(text) > _LONG and sum(unicodedata.category(char)[0] in "LNM" for char in text) < _LEAST_LETTERS * len(text):
        return Trust(False, "hardly any letters")
    if len(text) > _LONG and _is_shuffled(text):
        return Trust(False, "letters that make no words")
    if len(text) < _FEW and _shows_more(page):
        return Trust(False, "a picture shows more than the layer says")
    return Trust(True, "")


def _shows_more(page: RasterPage) -> bool:
    """Whether most of a page's ink is outside its few words: a scan with a stamp or a line of its archive in the layer."""
    height, width = (side // _CELL for side in page.pixels.shape[:2])
    if min(height, width) < 2:
        return False
    grey = (
        page.pixels[: height * _CELL, : width * _CELL, 1].reshape(height, _CELL, width, _CELL).min(axis=(1, 3)).astype(np.int16)
    )
    ink = np.median(grey) - grey > _CONTRAST
    whole = int(ink.sum())
    for word in page.words:
        x0, y0, x1, y1 = (int(side * page.scale / _CELL) for side in word.box)
        ink[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = False
    outside = int(ink.sum())
    return outside > _MORE * (whole - outside) and outside > _SPARSE * ink.size


def _is_bad(char: str) -> bool:
    return char == "\ufffd" or unicodedata.category(char) in ("Co", "Cn", "Cc", "Cs")


def _is_shuffled(text: str) -> bool:
    """Latin text without vowels: what a wrong or missing ToUnicode map makes of most alphabets."""
    latin = [char.lower() for char in text if char.isascii() and char.isalpha()]
    if len(latin) < 0.6 * len(text) or len(latin) < _LONG:
        return False
    vowels = sum(char in "aeiou" for char in latin) / len(latin)
    return not 0.2 < vowels < 0.65


def words_in(region: Region, page: RasterPage) -> list[Word]:
    """Words whose middle lies in the region, in the layer's order."""
    return [word for word in page.words if holds(region.box, word.box.scaled(page.scale))]


def words_by_region(regions: Sequence[Region], page: RasterPage) -> list[list[Word]]:
    """For each region its words; a word that lies in several belongs to the smallest, so none is read twice."""
    found: list[list[Word]] = [[] for _ in regions]
    for word in page.words:
        box = word.box.scaled(page.scale)
        inside = [i for i, region in enumerate(regions) if holds(region.box, box)]
        if inside:
            found[min(inside, key=lambda i: regions[i].box.area)].append(word)
    return found


def paragraph(words: Sequence[Word]) -> str:
    """Words of a region as text: lines joined, a hyphen at a line's end closed up before a small letter."""
    lines: dict[int, list[Word]] = {}
    for word in words:
        lines.setdefault(word.line, []).append(word)
    return join_lines([" ".join(word.text for word in line) for line in lines.values()])


def join_lines(lines: Sequence[str]) -> str:
    """Lines of a paragraph as one; no space between two CJK characters."""
    text = ""
    for line in lines:
        if not text or not line:
            text += line
        elif text.endswith(("-", "\u00ad", "\u2010")) and len(text) > 1 and text[-2].isalpha() and line[0].islower():
            text = text[:-1] + line
        else:
            text += line if is_cjk(text[-1]) and is_cjk(line[0]) else " " + line
    return text
