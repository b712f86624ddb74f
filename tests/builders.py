"""Documents that tests make: whole PDFs in microseconds, with text that is known."""

from __future__ import annotations

import itertools
from pathlib import Path

from pipelines.lanes import number_of

_WORDS = ("ledger page span block layout reading order archive column margin figure table harbour meadow river stone").split()  # noqa: SIM905


def pdf_bytes(pages: list[str], extra: bytes = b"") -> bytes:
    """A PDF with one line of Helvetica a page (Latin text without parentheses or backslashes)."""
    return drawn_pdf([text_at(20, 150, text) for text in pages], extra)


def text_at(x: float, y: float, text: str, size: float = 12) -> str:
    """Content stream: a line of Helvetica whose baseline begins at (x, y), in points from the bottom left."""
    return f"BT /F1 {size:g} Tf {x:g} {y:g} Td ({text}) Tj ET"


def drawn_pdf(streams: list[str], extra: bytes = b"") -> bytes:
    """A PDF of pages of 300 x 200 points, each drawn by its content stream; Helvetica is /F1."""
    count = len(streams)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, drawn in enumerate(streams):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        stream = drawn.encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    out, offsets = bytearray(b"%PDF-1.4\n" + extra), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def locked_pdf(pages: list[str], password: str) -> bytes:
    """The same, encrypted: nobody opens it without the password."""
    import pymupdf

    with pymupdf.open(stream=pdf_bytes(pages), filetype="pdf") as document:
        locked: bytes = document.tobytes(
            encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=password, owner_pw=f"owner of {password}"
        )
    return locked


def page_text(document: str, page: int) -> str:
    """What page `page` of a document made by `archive` says."""
    first, second = _WORDS[page % len(_WORDS)], _WORDS[(page * 7 + 3) % len(_WORDS)]
    return f"Document {document} page {page} says {first} and {second} in plain words"


def text_pdf(path: Path, pages: int, name: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pdf_bytes([page_text(name or path.stem, page) for page in range(pages)]))
    return path


def text_pdf_in_lane(folder: Path, name: str, pages: int, lane: int, lanes: int) -> Path:
    """The same, with a name behind `name` that puts it into one lane: which one follows from its whole path."""
    paths = (folder / f"{name}-{number}.pdf" for number in itertools.count())
    return text_pdf(next(path for path in paths if number_of(str(path), lanes) == lane), pages, name)


def archive(folder: Path, sizes: dict[str, int]) -> Path:
    """A folder with a PDF for each name, of so many pages."""
    for name, pages in sizes.items():
        text_pdf(folder / f"{name}.pdf", pages, name)
    return folder
