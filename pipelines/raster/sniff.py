"""What a file is, by its content.

Invariant: names and extensions are never looked at; what is neither a PDF nor one of four image formats is refused with a
code that says what it was.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.errors import EmptyFile, HtmlPage, UnsupportedFormat

_HEAD = 64 * 1024  # junk before a PDF's header is tolerated this far; readers accept 1 KiB, real archives hold more
_HTML = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|title|script)\b", re.I | re.S)


def sniff(path: str | Path) -> str:
    """pdf, tiff, png, jpeg or webp.

    Raises:
        EmptyFile, HtmlPage, UnsupportedFormat
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise EmptyFile("the file has no bytes")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if _HTML.match(head[:4096]):
        raise HtmlPage("the file is a web page: typically a download that failed; fetch the document again")
    if b"%PDF-" in head:
        return "pdf"
    raise UnsupportedFormat(f"neither a PDF nor TIFF, PNG, JPEG or WebP; it starts with {head[:8]!r}")
