"""One small file of each hostile kind, made here: name -> (bytes, states that are allowed).

States are those of its pages (ok, blank, degraded, failed), or of the document when it cannot be opened (failed, encrypted).
"""

from __future__ import annotations

import functools
import gzip
import io
import random
import zlib

import pymupdf
from PIL import Image

from tests.builders import page_text, pdf_bytes

READ = frozenset({"ok"})
EMPTY = frozenset({"blank"})
FLAGGED = frozenset({"degraded"})
REFUSED = frozenset({"failed"})
MENDED = READ | FLAGGED
PARTLY = FLAGGED | REFUSED
BOUNDED = READ | EMPTY | FLAGGED | REFUSED  # whatever it gives, within its limits

Kind = tuple[bytes, frozenset[str]]


def stream(content: bytes, extra: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), extra, content)


def assembled(objects: dict[int, bytes], trailer: bytes = b"") -> bytes:
    """A PDF with a right cross-reference table; object 1 is the catalogue."""
    out, offsets = bytearray(b"%PDF-1.7\n"), {}
    for number, body in sorted(objects.items()):
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    out += b"".join(b"%010d 00000 %s \n" % (offsets.get(n, 0), b"n" if n in offsets else b"f") for n in range(1, size))
    out += b"trailer << /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    return bytes(out)


FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
TEXT = b"BT /F1 12 Tf 20 150 Td (plain words on a page) Tj ET"


def one_page(
    content: bytes = TEXT,
    page: bytes = b"/MediaBox [0 0 300 200]",
    resources: bytes = b"",
    more: dict[int, bytes] | None = None,
    content_extra: bytes = b"",
    catalogue: bytes = b"",
    trailer: bytes = b"",
) -> bytes:
    """One page (object 3), its content (4) and a font (5)."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalogue,
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R %s /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> %s >> >>" % (page, resources),
        4: stream(content, content_extra),
        5: FONT,
    }
    return assembled(objects | (more or {}), trailer)


def _form(body: bytes, inner: bytes = b"") -> bytes:
    return stream(body, b"/Type /XObject /Subtype /Form /BBox [0 0 300 200] /Resources << /XObject << %s >> >>" % inner)


def billion_laughs(levels: int, pages: int = 1) -> bytes:
    """A form that draws another twice, that one yet another twice, and so on; each page draws it."""
    more = {10 + n: _form(b"/X Do /X Do", b"/X %d 0 R" % (11 + n)) for n in range(levels)}
    more[10 + levels] = _form(b"0 0 200 200 re f")
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R /Resources << /XObject << /X 10 0 R >> >> >>"
    more |= {1000 + n: page for n in range(pages)}
    more[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(b"%d 0 R" % (1000 + n) for n in range(pages)), pages)
    return one_page(b"/X Do", more=more)


def memory_bomb(side: int) -> bytes:
    """A PNG of some hundred kB that decodes to `side` x `side` x 3 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixels = _deflated(bytes(1 + 3 * side), side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _image(width: int, height: int, data: bytes, extra: bytes) -> bytes:
    entries = b"/Type /XObject /Subtype /Image /Width %d /Height %d /Filter /FlateDecode %s" % (width, height, extra)
    return one_page(b"q 300 0 0 200 0 0 cm /I Do Q", resources=b"/XObject << /I 10 0 R >>", more={10: stream(data, entries)})


def _deflated(piece: bytes, times: int) -> bytes:
    deflater = zlib.compressobj(9)
    return b"".join(deflater.compress(piece) for _ in range(times)) + deflater.flush()


def _page_tree(depth: int, cycle: bool = False) -> bytes:
    objects = {1: b"<< /Type /Catalog /Pages 10 0 R >>", 4: stream(TEXT), 5: FONT}
    for level in range(depth):
        objects[10 + level] = b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (11 + level)
    if cycle:
        objects[10 + depth] = b"<< /Type /Pages /Kids [10 0 R] /Count 1 >>"
    else:
        objects[10 + depth] = (
            b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 300 200] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
            % (9 + depth)
        )
    return assembled(objects)


def _flipped(data: bytes, share: float) -> bytes:
    dice, out = random.Random(1), bytearray(data)
    for at in range(9, len(out)):
        if dice.random() < share:
            out[at] ^= 1 << dice.randrange(8)
    return bytes(out)


def _encrypted(**options: object) -> bytes:
    return bytes(pymupdf.open("pdf", one_page()).tobytes(**options))


def _form_fields() -> bytes:
    document = pymupdf.open("pdf", one_page(b""))
    field = pymupdf.Widget()
    field.field_name, field.field_type, field.field_value = "name", pymupdf.PDF_WIDGET_TYPE_TEXT, "typed into a field"
    field.rect = pymupdf.Rect(20, 20, 280, 60)
    document[0].add_widget(field)
    return bytes(document.tobytes())


def _annotated(count: int) -> bytes:
    document = pymupdf.open("pdf", one_page())
    for number in range(count):
        document[0].add_text_annot(pymupdf.Point(5 + number % 280, 5 + number % 180), f"note {number}")
    return bytes(document.tobytes())


def _image_file(form: str, frames: int = 1) -> bytes:
    sink = io.BytesIO()
    images = [Image.new("RGB", (200, 100), (255, 255, 250 - n)) for n in range(frames)]
    for image in images:
        image.paste((0, 0, 0), (20, 20, 180, 40))
    images[0].save(sink, form, save_all=True, append_images=images[1:]) if frames > 1 else images[0].save(sink, form)
    return sink.getvalue()


def _png_bomb() -> bytes:
    """A PNG that declares and decodes to 60000 x 60000 grey pixels."""
    sink = io.BytesIO()
    Image.new("L", (8, 8)).save(sink, "PNG")
    data = sink.getvalue()
    at = data.index(b"IHDR")
    head = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + data[at + 12 : at + 17]
    return data[:at] + head + zlib.crc32(head).to_bytes(4, "big") + data[at + 21 :]


_WHOLE = pdf_bytes([page_text("whole", n) for n in range(6)])
_TABLE = _WHOLE.rindex(b"xref\n0")
_MANY = b"<< /Type /Pages /Kids [" + b"3 0 R " * 40 + b"] /Count 40 >>"


@functools.cache
def kinds() -> dict[str, Kind]:
    return _bombs() | _damage() | _strange_pages() | _not_pdfs() | _harmless()


def _bombs() -> dict[str, Kind]:
    rgb, bits = b"/ColorSpace /DeviceRGB /BitsPerComponent 8", b"/ColorSpace /DeviceGray /BitsPerComponent 1"
    lines = _deflated(b"0 0 m 1 1 l S\n" * 1000, 20_000)
    curves = b"".join(b"%d 0 m 9 %d 50 90 200 %d c S\n" % (n % 300, n % 200, n % 99) for n in range(20_000))
    itself = one_page(b"/X Do " + TEXT, resources=b"/XObject << /X 10 0 R >>", more={10: _form(b"/X Do", b"/X 10 0 R")})
    outline = {
        10: b"<< /Type /Outlines /First 11 0 R /Last 11 0 R /Count 1 >>",
        11: b"<< /Title (around) /Parent 10 0 R /Next 11 0 R /Prev 11 0 R >>",
    }
    return {
        "laughs": (billion_laughs(26), PARTLY),
        "bomb-content": (one_page(lines, content_extra=b"/Filter /FlateDecode"), BOUNDED),
        "bomb-image": (_image(20_000, 20_000, _deflated(bytes(60_000), 20_000), rgb), BOUNDED),
        "bomb-bits": (_image(40_000, 40_000, _deflated(bytes(5_000), 40_000), bits), BOUNDED),
        "bomb.png": (_png_bomb(), REFUSED),
        "vector-heavy": (one_page(curves), BOUNDED),
        "deep-q": (one_page(b"q " * 3000 + TEXT + b" Q" * 3000), BOUNDED),
        "deep-array": (one_page(page=b"/MediaBox [0 0 300 200] /Deep " + b"[" * 3000 + b"]" * 3000), BOUNDED),
        "xobject-self": (itself, MENDED),
        "pagetree-cycle": (_page_tree(3, cycle=True), PARTLY),
        "pagetree-deep": (_page_tree(300), BOUNDED),
        "outline-cycle": (one_page(catalogue=b"/Outlines 10 0 R", more=outline), READ),
        "prev-loop": (one_page(trailer=b"/Prev 9"), MENDED),
    }


def _damage() -> dict[str, Kind]:
    shifted = _WHOLE[:_TABLE] + _WHOLE[_TABLE:].replace(b"00000000", b"00000001")
    length = one_page().replace(b"/Length %d" % len(TEXT), b"/Length 4 0 R")
    return {
        "truncated-half": (_WHOLE[: len(_WHOLE) // 2], PARTLY),
        "truncated-end": (_WHOLE[: len(_WHOLE) * 95 // 100], PARTLY),
        "bitflips": (_flipped(_WHOLE, 0.01), BOUNDED),
        "eof-missing": (_WHOLE.replace(b"%%EOF\n", b"").rstrip(), FLAGGED),
        "startxref-wrong": (_WHOLE[:_TABLE] + _WHOLE[_TABLE:].replace(b"startxref\n", b"startxref\n99"), FLAGGED),
        "xref-shift": (shifted, FLAGGED),
        "junk-prefix": (b"\r\nmail header: x\r\n" * 40 + _WHOLE, MENDED),
        "junk-suffix": (_WHOLE + b"\0" * 5000, MENDED),
        "count-lies": (_WHOLE.replace(b"/Count 6", b"/Count 9"), BOUNDED),
        "count-absurd": (_WHOLE.replace(b"/Count 6", b"/Count 1000000"), FLAGGED),
        "length-self-ref": (length, BOUNDED),
        "encrypt-damaged": (one_page(trailer=b"/Encrypt << /Filter /Standard /V 9 /R 9 >>"), PARTLY | {"encrypted"}),
        "image-lies": (_image(2000, 2000, zlib.compress(bytes(300)), b"/ColorSpace /DeviceGray /BitsPerComponent 8"), BOUNDED),
        "zero-pages": (assembled({1: b"<< /Type /Catalog /Pages 2 0 R >>", 2: b"<< /Type /Pages /Kids [] /Count 0 >>"}), REFUSED),
    }


def _strange_pages() -> dict[str, Kind]:
    return {
        "page-14400": (one_page(page=b"/MediaBox [0 0 14400 14400]"), FLAGGED),
        "page-tiny": (one_page(page=b"/MediaBox [0 0 1 1]"), READ | EMPTY | REFUSED),
        "strip": (one_page(page=b"/MediaBox [0 0 3 14000]"), FLAGGED | EMPTY),
        "userunit": (one_page(page=b"/MediaBox [0 0 3000 3000] /UserUnit 100"), FLAGGED),
        "mediabox-bad": (one_page(page=b"/MediaBox [0 0 0 0]"), BOUNDED),
        "mediabox-nan": (one_page(page=b"/MediaBox [0 0 1e39 nan]"), BOUNDED),
        "cropbox-outside": (one_page(page=b"/MediaBox [0 0 300 200] /CropBox [900 900 990 990]"), READ),
        "blank": (one_page(b""), EMPTY),
        "rotated": (one_page(page=b"/MediaBox [0 0 300 200] /Rotate 270"), READ),
        "dense": (one_page(b"BT /F1 1 Tf 0 0 Td " + b"(words ) Tj 1 0.2 Td " * 8000 + b"ET"), READ | EMPTY),
    }


def _not_pdfs() -> dict[str, Kind]:
    return {
        "zero-byte": (b"", REFUSED),
        "html.pdf": (b"\xef\xbb\xbf <!-- saved --><!DOCTYPE HTML><html><body>404</body></html>", REFUSED),
        "gzip.pdf": (gzip.compress(_WHOLE), REFUSED),
        "random": (random.Random(2).randbytes(5000), REFUSED),
        "zip.pdf": (b"PK\x03\x04" + bytes(100), REFUSED),
        "header-only": (b"%PDF-1.7\n", REFUSED),
        "png.pdf": (_image_file("PNG"), READ),
        "tiff-as.jpg": (_image_file("TIFF", frames=3), READ),
        "cut.jpg": (_image_file("JPEG")[:700], PARTLY),
        "jpeg.pdf": (_image_file("JPEG"), READ),
        "webp": (_image_file("WEBP"), READ),
    }


def _harmless() -> dict[str, Kind]:
    """Odd, but nothing is wrong with them."""
    locked: dict[str, object] = {"encryption": pymupdf.PDF_ENCRYPT_AES_256, "user_pw": "secret", "owner_pw": "own"}
    return {
        "encrypted-user": (_encrypted(**locked), frozenset({"encrypted"})),
        "encrypted-owner": (_encrypted(**(locked | {"user_pw": ""})), READ),
        "form-fields": (_form_fields(), READ),
        "annotations": (_annotated(400), READ),
        "javascript": (one_page(catalogue=b"/OpenAction << /S /JavaScript /JS (app.alert\\(1\\);) >>"), READ),
        "naïve café – 契約 📄.pdf": (_WHOLE, READ),
        "-rf": (one_page(page=b"/MediaBox [0 0 301 200]"), READ),
        'quote\'d "name" & $HOME;%20%00': (one_page(page=b"/MediaBox [0 0 302 200]"), READ),
        "UPPER.PDF": (one_page(page=b"/MediaBox [0 0 303 200]"), READ),
        ".hidden": (one_page(page=b"/MediaBox [0 0 304 200]"), READ),
        "n" * 200: (one_page(page=b"/MediaBox [0 0 305 200]"), READ),
        "one-page-40-times": (one_page(more={2: _MANY}), MENDED),
    }
