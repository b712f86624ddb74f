"""PDFium (pypdfium2) as a rasterizer: what the official PaddleOCR-VL pipeline uses. The only importer of `pypdfium2`.

Invariant: runs in the child process only, one thread (PDFium is not thread-safe).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.errors import DamagedDocument, Encrypted, NoPages, PageDamaged
from pipelines.raster.damage import is_damaged, names_encryption
from pipelines.raster.sizing import fitting_dpi, usable
from pipelines.schema import Box, Probe, RasterPage, Word

_MANY_PAGES = 1000  # a document that claims more is asked for its last ones
_LAST_PAGES = 32
_MOST_CHARS = 200_000  # of one page: character boxes cost a call each (215 ms for 5,000); beyond, the page is read from pixels


class PdfiumRasterizer:
    """Rasterizer over one open PDF."""

    name = "pypdfium2"

    def __init__(self) -> None:
        import pypdfium2
        import pypdfium2.raw as raw

        self._pdfium: Any = pypdfium2
        self._raw: Any = raw
        self._document: Any = None
        self._flags: tuple[str, ...] = ()

    def open(self, path: str, passwords: Sequence[str]) -> Probe:
        document, password = self._unlock(path, passwords)
        said = len(document)
        count = self._believable(document, said)
        if count <= 0:
            raise NoPages("the document opens but has no pages")
        document.init_forms()
        self._document = document
        self._flags = ("repaired",) if is_damaged(path) or count != said else ()
        return Probe("pdf", count, password, self._flags)

    def _believable(self, document: Any, count: int) -> int:
        """The page count, or how many pages there are when it lies absurdly: PDFium believes a tree that says a million."""
        if count < _MANY_PAGES or any(self._loads(document, count - 1 - back) for back in range(_LAST_PAGES)):
            return count
        first, last = 0, count  # the first page that is not there lies between them
        while first < last:
            middle = (first + last) // 2
            first, last = (middle + 1, last) if self._loads(document, middle) else (first, middle)
        # a long document that lost its end keeps its count: each page that is gone is a page that failed
        return first if first * 10 < count else count

    def _loads(self, document: Any, page_index: int) -> bool:
        try:
            document[page_index].close()
        except self._pdfium.PdfiumError:
            return False
        return True

    def _unlock(self, path: str, passwords: Sequence[str]) -> tuple[Any, str | None]:
        for password in (None, *passwords):
            try:
                return self._pdfium.PdfDocument(path, password=password), password
            except self._pdfium.PdfiumError as error:
                locked = getattr(error, "err_code", None) == self._raw.FPDF_ERR_PASSWORD or "assword" in str(error)
                # PDFium's last error may be that of a document before: only one that names /Encrypt can be encrypted
                if not locked or not names_encryption(path):
                    raise DamagedDocument(f"PDFium cannot open it: {error}") from None
        raise Encrypted("needs a password; add it: --set source.passwords='[...]'")

    def render(self, page_index: int, dpi: float, max_megapixels: float) -> RasterPage:
        try:
            page = self._document[page_index]
        except self._pdfium.PdfiumError as error:
            raise PageDamaged(f"PDFium cannot load the page: {error}") from None
        try:
            width, height = page.get_size()
            if not (width and height):
                page.set_cropbox(*page.get_mediabox())  # a crop box beside the page shows nothing: readers ignore it
                width, height = page.get_size()
            if not usable(width, height):
                raise PageDamaged(f"the page declares a size of {width} x {height} points")
            fitting = fitting_dpi(width, height, dpi, max_megapixels)
            bitmap = page.render(scale=fitting / 72.0, rev_byteorder=True, force_bitmap_format=self._raw.FPDFBitmap_BGR)
            pixels = np.ascontiguousarray(bitmap.to_numpy()[:, :, :3])
            words = self._words(page, width, height)
        except self._pdfium.PdfiumError as error:
            raise PageDamaged(f"PDFium cannot draw the page: {error}") from None
        finally:
            page.close()
        flags = (*self._flags, *(("downscaled",) if fitting < dpi * 0.999 else ()))
        return RasterPage(pixels, fitting, width, height, *words, flags)

    def close(self) -> None:
        if self._document is not None:
            self._document.close()
            self._document = None

    def _words(self, page: Any, width: float, height: float) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
        raw, text = self._raw, page.get_textpage()
        found: tuple[list[Word], list[Word]] = ([], [])
        letters: list[str] = []
        box: Box | None = None
        line, bottom, start = 0, None, 0
        for index in range(min(text.count_chars(), _MOST_CHARS)):
            code = raw.FPDFText_GetUnicode(text, index)
            char = chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"
            if char.isspace() or code in (0xFFFE, 0x02):
                _finish(found, letters, box, line, self._style(text, start))
                letters, box = [], None
                line += char in "\r\n"
                continue
            here = self._char_box(page, text, index, width, height)
            if not letters:
                start = index
            letters.append(char)
            box = (
                here
                if box is None
                else Box(min(box.x0, here.x0), min(box.y0, here.y0), max(box.x1, here.x1), max(box.y1, here.y1))
            )
            bottom = here.y1
        del bottom
        _finish(found, letters, box, line, self._style(text, start))
        return tuple(found[0]), tuple(found[1])

    def _char_box(self, page: Any, text: Any, index: int, width: float, height: float) -> Box:
        left, bottom, right, top = text.get_charbox(index, loose=True)
        corners = [_to_device(self._raw, page, x, y, width, height) for x, y in ((left, top), (right, bottom))]
        xs, ys = sorted(x for x, _ in corners), sorted(y for _, y in corners)
        return Box(xs[0], ys[0], xs[1], ys[1])

    def _style(self, text: Any, index: int) -> tuple[float, bool, bool]:
        """(size in points, bold, visible) of a character."""
        raw = self._raw
        size = float(raw.FPDFText_GetFontSize(text, index))
        weight = int(raw.FPDFText_GetFontWeight(text, index))
        red, green, blue, alpha = (ctypes.c_uint(0) for _ in range(4))
        raw.FPDFText_GetFillColor(text, index, *(ctypes.byref(c) for c in (red, green, blue, alpha)))
        item = raw.FPDFText_GetTextObject(text, index)
        mode = raw.FPDFTextObj_GetTextRenderMode(item) if item else 0
        white = min(red.value, green.value, blue.value) == 255
        return size, weight >= 600, mode not in (3, 7) and not white and alpha.value > 8


def _finish(
    found: tuple[list[Word], list[Word]],
    letters: list[str],
    box: Box | None,
    line: int,
    style: tuple[float, bool, bool],
) -> None:
    if letters and box is not None:
        size, bold, visible = style
        found[0 if visible else 1].append(Word("".join(letters), box, line, size, bold))


def _to_device(raw: Any, page: Any, x: float, y: float, width: float, height: float) -> tuple[float, float]:
    """Page coordinates to displayed points: rotation and crop applied; a hundredth of a point is the resolution."""
    out_x, out_y = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page, 0, 0, int(width * 100), int(height * 100), 0, x, y, ctypes.byref(out_x), ctypes.byref(out_y))
    return out_x.value / 100.0, out_y.value / 100.0
