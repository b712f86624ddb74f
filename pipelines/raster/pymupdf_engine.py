"""PyMuPDF as a rasterizer: pixels, and the text layer word by word. The only importer of `pymupdf` (AGPL-3.0).

Invariant: runs in the child process only. Whatever MuPDF repaired or could not draw becomes a flag.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from unicodedata import normalize

import numpy as np

from pipelines.errors import DamagedDocument, Encrypted, NoPages, PageDamaged, PageMemory
from pipelines.raster.damage import has_junk_behind, is_damaged
from pipelines.raster.sizing import fitting_dpi, usable
from pipelines.schema import Box, Probe, RasterPage, Region, Word

_INVISIBLE_ALPHA = 8  # of 255
_LEAST_GAP = 0.1  # of the font size, between letters of two words
_LEAST_GAPS = 6  # pairs of letters that tell what is usual in a line
_LAST_ALPHABET = 0x2FFF  # beyond it scripts are written without blanks
_ACCENTS = {
    "\u00b4": "\u0301", "\u02c6": "\u0302", "\u02dc": "\u0303", "\u00a8": "\u0308", "\u02c7": "\u030c",
    "\u02da": "\u030a", "\u00b8": "\u0327", "\u02d8": "\u0306", "\u02dd": "\u030b", "\u00af": "\u0304",
}  # fmt: skip
_ACCENTED = re.compile("([" + "".join(_ACCENTS) + "])([A-Za-z\u0131\u0237])")
_DOTLESS = {0x131: "i", 0x237: "j"}
_LABELS = {
    "title": "title", "section-header": "title", "page-header": "header", "page-footer": "footer", "table": "table",
    "picture": "figure", "caption": "figure_caption", "formula": "formula", "footnote": "footnote",
}  # fmt: skip
_BOLD = 16  # bit of a span's flags
_FORGET_EVERY = 32  # pages between two emptyings of MuPDF's store, which else grows to 256 MiB: 16 MiB per 100 pages, then 1


class PyMuPDFRasterizer:
    """Rasterizer over one open PDF."""

    name = "pymupdf"

    def __init__(self, layout: bool = False) -> None:
        """
        Args:
            layout: load PyMuPDF's own layout model too, and give its regions with every page that has text.
        """
        self._layout = layout
        # optional for PyMuPDF 2.0, which imports them by itself: its layout models and their runtime, of no use here.
        # Without: 0.06 s of CPU instead of 0.5, 47 MiB resident instead of 137 (docs/performance.md)
        for needless in ("pymupdf4llm",) if layout else ("pymupdf.layout", "pymupdf4llm"):
            sys.modules.setdefault(needless, None)  # type: ignore[arg-type]
        import pymupdf

        self._mupdf: Any = pymupdf
        pymupdf.TOOLS.mupdf_display_errors(False)
        pymupdf.TOOLS.mupdf_display_warnings(False)
        self._document: Any = None
        self._flags: tuple[str, ...] = ()
        self._rendered = 0

    def open(self, path: str, passwords: Sequence[str]) -> Probe:
        try:
            document = self._mupdf.open(path, filetype="pdf")
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedDocument(f"MuPDF cannot open it: {_without_path(error, path)}") from None
        password = _unlock(document, passwords)
        try:
            count = document.page_count
        except Exception as error:
            raise DamagedDocument(f"MuPDF finds no page tree: {error}") from None
        if count <= 0:
            raise NoPages("the document opens but has no pages")
        # MuPDF also "repairs" a whole file with more than 1 KiB of junk behind its end
        damaged = is_damaged(path) or (bool(document.is_repaired) and not has_junk_behind(path))
        self._flags = ("repaired",) if damaged else ()
        self._document = document
        return Probe("pdf", count, password, self._flags)

    def render(self, page_index: int, dpi: float, max_megapixels: float) -> RasterPage:
        tools = self._mupdf.TOOLS
        tools.reset_mupdf_warnings()
        self._rendered += 1
        if self._rendered % _FORGET_EVERY == 0:
            tools.store_shrink(100)
        try:
            page = self._document.load_page(page_index)
            if (page.cropbox & page.mediabox).is_empty and not page.mediabox.is_empty:
                page.set_cropbox(page.mediabox)  # a crop box beside the page shows nothing: readers ignore it
            width, height = page.rect.width, page.rect.height
            if not usable(width, height):
                raise PageDamaged(f"the page declares a size of {width} x {height} points")
            fitting = fitting_dpi(width, height, dpi, max_megapixels)
            zoom = fitting / 72.0
            pixmap = page.get_pixmap(
                matrix=self._mupdf.Matrix(zoom, zoom), colorspace=self._mupdf.csRGB, alpha=False, annots=True
            )
            # `samples` copies; a view (`samples_mv`) outlives its pixmap and then shows freed memory
            pixels = np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.width, 3)
            words, hidden = self._words(page)
            hints = self._regions(page, zoom) if self._layout and words else ()
        except (PageDamaged, MemoryError):
            raise
        except Exception as error:
            if "malloc" in str(error) or "calloc" in str(error) or "memory" in str(error):
                raise PageMemory(f"MuPDF: {error}") from None
            raise PageDamaged(f"MuPDF cannot draw the page: {error}") from None
        flags = (*self._flags, *(("downscaled",) if fitting < dpi * 0.999 else ()), *_warned(tools.mupdf_warnings()))
        return RasterPage(pixels, fitting, width, height, words, hidden, flags, hints)

    def close(self) -> None:
        if self._document is not None:
            self._document.close()
            self._document = None

    def _regions(self, page: Any, zoom: float) -> tuple[Region, ...]:
        """What PyMuPDF's layout model sees, by text and vectors of the page; pixels."""
        page.get_layout()
        found = []
        for x0, y0, x1, y1, name, *_ in page.layout_information or ():
            box = (self._mupdf.Rect(x0, y0, x1, y1) * page.rotation_matrix).normalize()
            place = Box(box.x0 * zoom, box.y0 * zoom, box.x1 * zoom, box.y1 * zoom)
            found.append(Region(_LABELS.get(name, "text"), place, 1.0, str(name)))
        return tuple(found)

    def _words(self, page: Any) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
        """Visible and hidden words, in the layer's own order, in points of the page as displayed."""
        mupdf = self._mupdf
        flags = mupdf.TEXT_PRESERVE_LIGATURES | mupdf.TEXT_PRESERVE_WHITESPACE | mupdf.TEXT_MEDIABOX_CLIP
        content = page.get_text("rawdict", flags=flags & ~mupdf.TEXT_PRESERVE_LIGATURES)
        visible: list[Word] = []
        hidden: list[Word] = []
        turn = page.rotation_matrix
        line_number = 0
        drawn: set[tuple[str, int, int]] = set()
        for block in content["blocks"]:
            for line in block.get("lines", ()):
                for word, seen in _line_words(line, line_number, turn, mupdf.Rect, drawn):
                    (visible if seen else hidden).append(word)
                line_number += 1
        return tuple(visible), tuple(hidden)


def _line_words(line: Any, number: int, turn: Any, rect: Any, drawn: set[tuple[str, int, int]]) -> Iterator[tuple[Word, bool]]:
    """Words of a line, cut at white space and where letters stand apart; a word is hidden when its first span is.

    Args:
        drawn: letters of the page so far, with their places in half points: one that is drawn again there (to look bold, to
            cast a shadow) is the same letter.
    """
    text, box, head = "", None, None
    apart = _word_gap(line)
    for span in line["spans"]:
        for char in span["chars"]:
            here = rect(char["bbox"])
            space = char["c"].isspace()
            if not space:
                place = char["c"], round(2 * here.x0), round(2 * here.y0)
                if place in drawn:
                    continue
                drawn.add(place)
            if text and head is not None and box is not None and (space or here.x0 - box.x1 > apart):
                yield _word(text, box, number, head, turn), _is_visible(head)
                text, box, head = "", None, None
            if not space:
                text += char["c"]
                box = here if box is None else box | here
                head = head or span
    if text and head is not None and box is not None:
        yield _word(text, box, number, head, turn), _is_visible(head)


def _word_gap(line: Any) -> float:
    """How far letters of a line stand apart where a blank was meant and none was written; MuPDF misses gaps below 0.2 of
    the font size. Letters of a line that is set wide stand apart evenly, so the gap must be far above the usual one."""
    if abs(line["dir"][1]) > 0.01 or line["dir"][0] < 0:
        return float("inf")
    chars = [(char, span["size"]) for span in line["spans"] for char in span["chars"]]
    gaps = sorted(
        (after["bbox"][0] - before["bbox"][2]) / max(size, 1.0)
        for (before, size), (after, _) in pairwise(chars)
        if not before["c"].isspace() and not after["c"].isspace()
    )
    if len(gaps) < _LEAST_GAPS or max(ord(char["c"]) for char, _ in chars) > _LAST_ALPHABET:
        return float("inf")
    size = max(size for _, size in chars)
    return float(size * max(_LEAST_GAP, gaps[int(0.75 * len(gaps))] + _LEAST_GAP))


def _word(text: str, box: Any, number: int, span: Any, turn: Any) -> Word:
    shown = (box * turn).normalize()
    clean = _composed(text.encode("utf-8", "replace").decode().replace("\0", "\ufffd"))
    return Word(clean, Box(shown.x0, shown.y0, shown.x1, shown.y1), number, float(span["size"]), bool(span["flags"] & _BOLD))


def _composed(text: str) -> str:
    """Accents that were drawn before their letters (as TeX does) become part of them: `J´an` is Ján."""
    if not any(char in _ACCENTS for char in text):
        return text
    return _ACCENTED.sub(lambda m: normalize("NFC", m[2].translate(_DOTLESS) + _ACCENTS[m[1]]), text)


def _is_visible(span: Any) -> bool:
    if span.get("alpha", 255) <= _INVISIBLE_ALPHA or span["size"] < 0.5:  # MuPDF gives render mode 3 an alpha of 0
        return False
    return bool(span["color"] != 0xFFFFFF)


def _without_path(error: Exception, path: str) -> str:
    """The library's words without the cached copy's path, which means nothing to whoever sent the document."""
    return str(error).replace(path, "the document")


def _unlock(document: Any, passwords: Sequence[str]) -> str | None:
    if not document.needs_pass:
        return None
    for password in passwords:
        if document.authenticate(password):
            return password
    raise Encrypted("needs a password; add it: --set source.passwords='[...]'")


def _warned(warnings: str) -> tuple[str, ...]:
    """Content that MuPDF gave up on: the page is drawn, but not whole."""
    lost = ("syntax error", "cannot", "ignoring", "premature", "corrupt", "error:")
    return ("incomplete",) if any(word in line.lower() for line in warnings.splitlines() for word in lost) else ()


def available() -> bool:
    """Whether the library is installed, without importing it."""
    from importlib.util import find_spec

    return find_spec("pymupdf") is not None
