"""An output in the official PaddleOCR-VL form: `*_res.json`, `.md`, `imgs/`, overlay pictures, `layoutParsingResults`.

Invariant: files of a document go into a folder of its own; names within it are the official ones. Pages that failed are
counted, not made up. Where two pages of a document would share a picture's path, the later one names its page
(`strict_parity`: they share it, as they do officially).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.assemble.official.document import one_page, one_result, restructured, with_page_in_paths
from pipelines.assemble.official.markdown import page_markdown
from pipelines.assemble.official.page import OfficialPage
from pipelines.assemble.official.stored import stored_page, stored_result
from pipelines.config import PaddleOcrVlConfig
from pipelines.export.documents import Exported
from pipelines.observe.pages import PageDrawer
from pipelines.schema import PageState, Pixels
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder

_JPEG_QUALITY = 95  # what OpenCV writes unless told otherwise
_MANY = ("pdf", "tiff")  # formats whose pages the official pipeline numbers


@dataclass(slots=True)
class Counts:
    documents: int = 0
    pages: int = 0
    failed: list[str] = field(default_factory=list)  # pages that are not exported, as `uri page N`
    not_drawn: list[str] = field(default_factory=list)  # overlays that could not be made, with the reason


class PaddleOcrExport:
    """
    Args:
        store: the output that the documents are from.
        target: where the files go.
        restructure: tables merged and titles levelled over the pages of a document, as `restructure_pages` does.
        drawer: draws pages again for overlay pictures; None: no overlays.
        openers: by URI, the drawer's number of what opens it.
    """

    def __init__(
        self, store: ObjectStore, target: ObjectStore, options: PaddleOcrVlConfig, restructure: bool, drawer: PageDrawer | None,
        openers: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._store, self._target, self._options = store, target, options
        self._restructure, self._drawer, self._openers = restructure, drawer, openers or {}
        self.counts = Counts()

    def document(self, document: Exported, options: PaddleOcrVlConfig | None = None) -> None:
        """Writes one document's files.

        Args:
            options: of the run that read it; None: those given for all.
        """
        self._options = options or self._options
        rows = [row for row in document.pages if row["state"] != PageState.FAILED]
        failed = [row["page_index"] + 1 for row in document.pages if row["state"] == PageState.FAILED]
        self.counts.failed += [f"{document.uri} page {page}" for page in failed]
        self.counts.documents += 1
        self.counts.pages += len(rows)
        pages, images = self._official(rows, document.doc_id)
        if self._restructure:
            pages = restructured(pages, self._options)
        numbered = document.format in _MANY
        count = document.page_count if numbered else None
        results = [stored_result(page, self._options, count) for page in pages]
        stems = [f"{document.stem}_{row['page_index']}" if numbered else document.stem for row in rows]
        for row, page, result, stem in zip(rows, pages, results, stems, strict=True):
            index = row["page_index"] if numbered else None
            self._put(document, f"{stem}_res.json", _json(saved_form(result, document.uri, index)))
            self._put(document, f"{stem}.md", page_markdown(page, self._options).encode("utf-8", "replace"))
            self._overlay(document, row, page, stem)
        for path, data in images.items():
            self._put(document, path, data)
        if self._restructure and self._options.concatenate_pages and pages:
            pages, results = self._whole(document, pages)
        self._put(document, f"{document.stem}_layout_parsing.json", _json(self._envelope(document, pages, results, images)))

    def _official(self, rows: list[dict[str, Any]], doc_id: str) -> tuple[list[OfficialPage], dict[str, bytes]]:
        """Pages, and the JPEG of each picture by its path."""
        pages: list[OfficialPage] = []
        images: dict[str, bytes] = {}
        for row in rows:
            page, names = stored_page(row, self._options)
            if not self._options.strict_parity and any(path in images for path in page.figures):
                renamed = with_page_in_paths(page, row["page_index"])
                new = dict(zip(page.figures, renamed.figures, strict=True))
                names = {new[old]: name for old, name in names.items()}
                page = renamed
            for path, name in names.items():
                images[path] = _jpeg(self._store.get(f"{document_folder(doc_id)}/{name}"))
            pages.append(page)
        return pages, images

    def _whole(self, document: Exported, pages: list[OfficialPage]) -> tuple[list[OfficialPage], list[dict[str, Any]]]:
        whole, result = one_page(pages, self._options), one_result(pages, self._options)
        self._put(document, f"{document.stem}.md", page_markdown(whole, self._options).encode("utf-8", "replace"))
        self._put(document, f"{document.stem}_res.json", _json(saved_form(result, document.uri, None)))
        return [whole], [result]

    def _envelope(
        self, document: Exported, pages: list[OfficialPage], results: list[dict[str, Any]], images: dict[str, bytes]
    ) -> dict[str, Any]:
        """What the official HTTP API answers to `/layout-parsing`."""
        parsed = [
            {
                "prunedResult": result,
                "markdown": {
                    "text": page_markdown(page, self._options),
                    "images": {path: base64.b64encode(images[path]).decode("ascii") for path in page.figures if path in images},
                },
            }
            for page, result in zip(pages, results, strict=True)
        ]
        sizes = [{"width": row["width_px"], "height": row["height_px"]} for row in document.pages]
        if document.format in _MANY:
            info: dict[str, Any] = {"numPages": document.page_count, "pages": sizes, "type": document.format}
        else:
            info = {**sizes[0], "type": "image"}
        answer = {"layoutParsingResults": parsed, "dataInfo": info}
        return {"logId": document.doc_id, "result": answer, "errorCode": 0, "errorMsg": "Success"}

    def _overlay(self, document: Exported, row: dict[str, Any], page: OfficialPage, stem: str) -> None:
        if self._drawer is None or not page.regions:
            return
        try:
            pixels = self._drawer.draw(row, document.uri, self._options, self._openers.get(document.uri, 0))
        except Exception as error:  # the page's other files are there; the reason is reported
            self.counts.not_drawn.append(f"{document.uri} page {row['page_index'] + 1}: {error}")
            return
        self._put(document, f"{stem}_layout_det_res.png", overlay(pixels, page))

    def _put(self, document: Exported, name: str, data: bytes) -> None:
        self._target.put(f"{document.folder}/{name}", data)


def saved_form(pruned: dict[str, Any], input_path: str, page_index: int | None) -> dict[str, Any]:
    """`*_res.json`: what `prunedResult` leaves out put back, in the official order of keys."""
    saved: dict[str, Any] = {"input_path": input_path, "page_index": page_index, **pruned}
    nameless = {"input_path": None, "page_index": None}  # of what was handed on as an array
    for key in ("doc_preprocessor_res", "layout_det_res"):
        if isinstance(found := saved.get(key), dict):
            saved[key] = nameless | found
        elif isinstance(found, list):  # of pages put together
            saved[key] = [nameless | each if isinstance(each, dict) else each for each in found]
    return saved


def overlay(pixels: Pixels, page: OfficialPage) -> bytes:
    """PNG of the page with its regions: boxes, labels, reading order."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    size = max(12, image.width // 80)
    for region in page.regions:
        colour = _COLOURS[sum(region.native_label.encode()) % len(_COLOURS)]
        box = (region.box.x0, region.box.y0, max(region.box.x0, region.box.x1), max(region.box.y0, region.box.y1))
        draw.rectangle(box, outline=colour, width=2)
        words = region.native_label + (f" {region.order}" if region.order is not None else "")
        at = (box[0], max(0.0, box[1] - size - 2))
        draw.rectangle(draw.textbbox(at, words, font_size=size), fill=colour)
        draw.text(at, words, fill="white", font_size=size)
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=6)
    return sink.getvalue()


_COLOURS = ("#2463a8", "#5a46c0", "#16706f", "#2b7531", "#a85300", "#8a3a8f", "#b3261e")


def _jpeg(stored: bytes) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    with Image.open(io.BytesIO(stored), formats=("PNG", "JPEG")) as image:
        image.convert("RGB").save(sink, "JPEG", quality=_JPEG_QUALITY)
    return sink.getvalue()


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=4).encode("utf-8", "replace")
