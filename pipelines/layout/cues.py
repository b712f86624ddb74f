"""What a group of lines is: title, list item, caption, furniture; told from its words, its type and its place.

Invariant: pure. A label of the layout model is one witness among others; text that may be content is never called furniture
on the model's word alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.layout.lines import TextLine
from pipelines.schema import Box

BULLET = re.compile(
    "^(?:[\u2022\u25cf\u25aa\u25ab\u25a0\u25a1\u25e6\u25cb\u2023\u2043\u00b7\uf0b7\u27a2\u2713\u2714*\u2013\u2014-])\\s+(?=\\S)"
)
NUMBER = re.compile(r"^(\d{1,3})([.)])\s+(?=\S)")
LETTER = re.compile(r"^(?:\((?:[a-zA-Z]|\d{1,3}|[ivx]{1,5})\)|[a-zA-Z][.)]|[ivx]{2,5}[.)])\s+(?=\S)")
_CAPTION = re.compile(
    r"^(?P<kind>fig(?:ure|\.)|abb(?:ildung|\.)|chart|graph|plate|图|圖|table|tab(?:elle|leau|la|\.)|cuadro|exhibit|表)"
    r"\s*(?:[A-Z]?[\dIVX]+(?:[.\-–]\d+)*[a-z]?)",
    re.I,
)
_TABLE_WORDS = ("tab", "cuadro", "表")
_LONGEST_MARK = 7  # letters
_SECTION = re.compile(r"^(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+\S")
_PAGE_NUMBER = re.compile(
    r"^(?:(?:page|seite|p\.|pg\.?|página|pagina|第)\s*)?[-–—|\[(]?\s*(?:[A-Z]{0,3}-?\d{1,4}|[ivxlc]{1,6})\s*[-–—|\])]?"
    r"(?:\s*(?:/|of|von|de|sur)\s*\d{1,4})?\s*页?$",
    re.I,
)
_MARGIN = 0.09  # of the page's height: furniture stands in it
_DEEP_MARGIN = 0.16  # where the model says so too
_TITLE_SIZE = 1.17  # of the body's font size
_LONG_TITLE = 160  # letters
_LONG_HEAD = 60  # letters of a numbered head
_NUMBERED = re.compile(r"^\d{1,2}(?:\.\d{1,2}){0,3}\.?\s+[^\W\d_a-z]")
_NOTE = re.compile(r"^(?:\d{1,3}|[*†‡§¶#]|\([a-z\d]\)|\[\d+\]|[¹²³⁴-⁹]+|notes?:|source:)\s*\S", re.I)


def is_item(text: str) -> bool:
    """Whether a row of text begins an item of a list."""
    return bool(BULLET.match(text) or NUMBER.match(text) or LETTER.match(text))


def is_mark(text: str) -> bool:
    """Whether a text is nothing but the mark of an item: a bullet, a number with a full stop."""
    return len(text) < _LONGEST_MARK and is_item(f"{text} x")


def caption_kind(text: str) -> str | None:
    """`table_caption`, `figure_caption` or None."""
    found = _CAPTION.match(text)
    if not found:
        return None
    return "table_caption" if found["kind"].lower().startswith(_TABLE_WORDS) else "figure_caption"


def is_page_number(text: str) -> bool:
    return bool(_PAGE_NUMBER.match(text.strip()))


def is_note(text: str) -> bool:
    return len(text) > 30 and bool(_NOTE.match(text))


def looks_like_title(rows: Sequence[TextLine], body: float, said: bool) -> bool:
    """
    Args:
        rows: the group's lines, from top to bottom.
        body: font size of the page's body, pixels.
        said: the layout model calls it a title.
    """
    text = " ".join(line.text for line in rows).strip()
    letters = sum(char.isalpha() for char in text)
    if BULLET.match(text):
        return False
    if letters < 2 or letters < 0.4 * len(text.replace(" ", "")) or len(text) > _LONG_TITLE or len(rows) > 4:
        return False
    size = max(line.size for line in rows)
    bold = all(line.bold for line in rows)
    sentence = text.endswith((".", ",", ";", "。", "，")) and not _SECTION.match(text)
    if size > _TITLE_SIZE * body and not (sentence and size < 1.4 * body) and not (text[0].islower() and size < 1.4 * body):
        return len(text) < 100 or size > 1.4 * body
    if sentence or text.endswith(":"):
        return False
    if rows[0].confidence is not None and len(rows) == 1 and len(text) < _LONG_HEAD and size > body and _NUMBERED.match(text):
        return True  # pixels do not say what is bold
    return (said or bold) and size > 0.9 * body and len(rows) <= 3 and not text[0].islower()


def title_level(text: str, size: float, body: float) -> int:
    """1 to 6: by its number where it has one, else by its size."""
    section = _SECTION.match(text)
    if section and size < 1.6 * body:
        return min(6, 2 + section[1].count("."))
    return 1 if size > 1.55 * body else 2


def furniture(
    box: Box, text: str, rows: int, size: float, body: float, page: tuple[float, float], inner: tuple[float, float], said: str
) -> str | None:
    """`header`, `footer`, `page_number` or None.

    Args:
        page: its width and height.
        inner: where the rest of the page's content begins and ends, from the top.
        said: the layout model's label.
    """
    height = page[1]
    at_top, at_bottom = box.y1 < _MARGIN * height, box.y0 > (1 - _MARGIN) * height
    deep_top, deep_bottom = box.y1 < _DEEP_MARGIN * height, box.y0 > (1 - _DEEP_MARGIN) * height
    if not (deep_top or deep_bottom):
        return None
    if (at_top or at_bottom) and is_page_number(text):
        return "page_number"
    if rows > 2 or len(text) > 150 or size > 1.3 * body:
        return None
    if text.endswith(".") and len(text.split()) > 5:
        return None  # a sentence
    apart = inner[0] - box.y1 if deep_top else box.y0 - inner[1]
    if said in ("header", "footer") and apart > 0.2 * size:
        return "header" if deep_top else "footer"
    if (at_top or at_bottom) and rows == 1 and len(text) < 110 and apart > 1.1 * size and size < 1.12 * body:
        return "header" if at_top else "footer"
    return None
