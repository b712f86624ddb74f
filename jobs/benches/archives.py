"""Archives that benches read: distinct documents made from a few real ones.

Invariant: each copy is a document of its own (its bytes differ) with the pages of its original.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SAMPLES = Path(__file__).parent.parent.parent / "samples" / "documents"
_DAMAGED = "damaged.pdf"  # the sample that fails, as it should


def originals(folder: Path | None) -> list[Path]:
    """Documents of a folder, sorted; default: the samples that the repository ships, without the damaged one."""
    found = sorted(path for path in (folder or SAMPLES).rglob("*") if path.is_file() and path.name != _DAMAGED)
    if not found:
        raise FileNotFoundError(f"{folder or SAMPLES}: no documents there; --documents FOLDER names some")
    return found


def copies(documents: list[Path], into: Path, least_pages: int) -> tuple[list[Path], int]:
    """Copies whole rounds of documents into a folder until they hold enough pages; the files and their pages."""
    into.mkdir(parents=True, exist_ok=True)
    counted = [(path, page_count(path)) for path in documents]
    made, pages, number = [], 0, 0
    while pages < least_pages:
        for path, count in counted:
            copy = into / f"{path.stem}-{number:05d}{path.suffix}"
            copy.write_bytes(path.read_bytes() + b"\n%% copy %d\n" % number)  # readers of PDF and TIFF look past it
            made.append(copy)
            pages += count
        number += 1
    return made, pages


def page_count(path: Path) -> int:
    """Pages of a PDF or image."""
    if path.suffix.lower() == ".pdf":
        import pypdfium2

        with pypdfium2.PdfDocument(path) as document:
            return len(document)
    from PIL import Image

    with Image.open(path, formats=("PNG", "JPEG", "WEBP", "TIFF")) as image:
        return int(getattr(image, "n_frames", 1))


def long_pdf(documents: list[Path], path: Path, pages: int) -> Path:
    """One PDF of so many pages: those of the given PDFs again and again, each a page object of its own."""
    import pypdfium2

    sources = [pypdfium2.PdfDocument(document) for document in documents if document.suffix.lower() == ".pdf"]
    book = pypdfium2.PdfDocument.new()
    for source, page in _round(sources, pages):
        book.import_pages(source, [page])
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def _round(sources: list[object], pages: int) -> Iterator[tuple[object, int]]:
    left = pages
    while left > 0:
        for source in sources:
            for page in range(len(source)):  # type: ignore[arg-type]
                if left > 0:
                    yield source, page
                    left -= 1


def plain_pdfs(folder: Path, documents: int, pages: int) -> None:
    """Distinct PDFs of empty pages: as cheap to open as PDFs are."""
    import pypdfium2

    book = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        book.new_page(595, 842)
    folder.mkdir(parents=True, exist_ok=True)
    book.save(folder / "first.pdf")
    content = (folder / "first.pdf").read_bytes()
    (folder / "first.pdf").unlink()
    for number in range(documents):
        (folder / f"{number:07d}.pdf").write_bytes(content + b"\n%% copy %d\n" % number)
