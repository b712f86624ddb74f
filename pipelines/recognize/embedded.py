"""Reader `embedded`: text from a trusted text layer, else from pixels with PP-OCRv6; tables with SLANet-plus; figures cut out.

Invariant: models load when a page needs them, so a run over born-digital documents never loads the OCR ones. Every line
that was read ends in exactly one block; lines outside all regions make blocks of their own.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cached_property

import numpy as np

from pipelines.config import RecognizeConfig
from pipelines.errors import EngineFailed
from pipelines.layout.order import reading_order
from pipelines.layout.rules import around, holds
from pipelines.recognize.base import Reading
from pipelines.recognize.ocr import Line, LineReader
from pipelines.recognize.tables import TableReader
from pipelines.recognize.textlayer import join_lines, paragraph, policy, trust, words_by_region, words_in
from pipelines.schema import Block, Box, Figure, Pixels, RasterPage, Region

_AGREE = 0.5  # similarity of a block's two texts below which the page is flagged (`verify`)
_LONG = 20  # characters of a block worth comparing


class EmbeddedReader:
    """Reads whole pages; see `recognize/base.py`."""

    name = "embedded"

    def __init__(self, config: RecognizeConfig) -> None:
        self._policy = policy(config)
        self._deadline_s = config.deadline_s
        self._lines = LineReader(config.threads)
        self._tables = TableReader()

    @cached_property
    def weights(self) -> str:
        digest = hashlib.sha256()
        for path in (*self._lines.model_paths, self._tables.model_path):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        until = time.monotonic() + self._deadline_s
        trusted = self._policy != "off" and trust(page).trusted
        try:
            if trusted and self._policy == "prefer":
                return self._from_layer(page, regions)
            reading = self._from_pixels(page, regions, until)
        except Exception as error:
            raise EngineFailed(f"{type(error).__name__}: {error}") from error
        if trusted:
            reading.flags += _disagreement(reading.blocks, page)
        return reading

    # -- text layer ----------------------------------------------------------------------------------------------------

    def _from_layer(self, page: RasterPage, regions: list[Region]) -> Reading:
        reading = Reading([])
        for region, words in zip(regions, words_by_region(regions, page), strict=True):
            started = time.perf_counter()
            block = self._block(region, "text_layer", "text layer", "")
            if region.label == "figure":
                self._figure(block, page, reading)
                block.content = paragraph(words)
            elif region.label == "table":
                cells = [(word.text, word.box.scaled(page.scale)) for word in words]
                self._table(block, page, cells, paragraph(words))
            else:
                block.content = paragraph(words)
            block.seconds = time.perf_counter() - started
            if block.content or block.image:
                reading.blocks.append(block)
        return reading

    # -- pixels --------------------------------------------------------------------------------------------------------

    def _from_pixels(self, page: RasterPage, regions: list[Region], until: float) -> Reading:
        started = time.perf_counter()
        lines, whole = self._lines.read(page.pixels, until)
        per_line = (time.perf_counter() - started) / max(1, len(lines))
        reading = Reading([], flags=[] if whole else ["reading_cut_short"], timing=not whole)
        weights = self.weights[:16]
        for region, held in _assign(regions, lines):
            block = self._block(region, "pixels", self._lines.name, weights)
            block.confidence = float(np.mean([line.confidence for line in held])) if held else None
            text = _paragraph(held)
            if region.label == "figure":
                self._figure(block, page, reading)
                block.content = text
            elif region.label == "table":
                self._table(block, page, [(line.text, line.box) for line in held], text)
            else:
                block.content = text
            block.seconds = per_line * len(held)
            if block.content or block.image:
                reading.blocks.append(block)
        return reading

    # -- both ----------------------------------------------------------------------------------------------------------

    def _block(self, region: Region, source: str, engine: str, weights: str) -> Block:
        level = 2 if region.label == "title" else None
        return Block(region.label, region.box, "", source, engine, weights, level=level)

    def _table(self, block: Block, page: RasterPage, words: list[tuple[str, Box]], text: str) -> None:
        crop, box = _crop(page.pixels, block.box_px)
        inside = [(word, Box(b.x0 - box.x0, b.y0 - box.y0, b.x1 - box.x0, b.y1 - box.y0)) for word, b in words]
        block.content = text
        if crop.size and words:
            block.html = self._tables.read(crop, inside) or None
            block.engine = f"{block.engine} + {self._tables.name}"
            block.weights = self.weights[:16]

    def _figure(self, block: Block, page: RasterPage, reading: Reading) -> None:
        crop, _ = _crop(page.pixels, block.box_px)
        if not crop.size:
            return
        data = _png(crop)
        block.image = f"{hashlib.sha256(data).hexdigest()}.png"
        reading.figures.append(Figure(block.image, data))


def _assign(regions: Sequence[Region], lines: Sequence[Line]) -> list[tuple[Region, list[Line]]]:
    """Each line to the smallest region that holds its middle; what is left makes text regions; reading order."""
    held: list[list[Line]] = [[] for _ in regions]
    stray: list[list[Line]] = []
    for line in lines:
        inside = [i for i, region in enumerate(regions) if holds(region.box, line.box)]
        if inside:
            held[min(inside, key=lambda i: regions[i].box.area)].append(line)
        elif stray and _continues(stray[-1][-1].box, line.box):
            stray[-1].append(line)
        else:
            stray.append([line])
    found = list(zip(regions, held, strict=True))
    found += [(Region("text", around([line.box for line in group]), 0.0), group) for group in stray]
    return [found[i] for i in reading_order([region.box for region, _ in found])]


def _continues(above: Box, below: Box) -> bool:
    """Whether a line goes on the paragraph of the line above it."""
    overlap = min(above.x1, below.x1) - max(above.x0, below.x0)
    return overlap > 0.5 * min(above.width, below.width) and -0.5 * above.height < below.y0 - above.y1 < 0.8 * above.height


def _paragraph(lines: Sequence[Line]) -> str:
    """Lines by row, left to right within a row."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda found: (found.box.y0 + found.box.y1) / 2):
        if rows and (line.box.y0 + line.box.y1) / 2 < rows[-1][0].box.y1 - 0.25 * rows[-1][0].box.height:
            rows[-1].append(line)
        else:
            rows.append([line])
    return join_lines([" ".join(line.text for line in sorted(row, key=lambda found: found.box.x0)) for row in rows])


def _disagreement(blocks: Sequence[Block], page: RasterPage) -> list[str]:
    """A flag when some block's text differs strongly from what the trusted layer has there."""
    for block in blocks:
        layer = paragraph(words_in(Region(block.label, block.box_px, 1.0), page))
        if max(len(layer), len(block.content)) < _LONG:
            continue
        if SequenceMatcher(None, layer, block.content, autojunk=False).ratio() < _AGREE:
            return ["text_layer_disagrees"]
    return []


def _crop(pixels: Pixels, box: Box) -> tuple[Pixels, Box]:
    height, width = pixels.shape[:2]
    x0, y0 = max(0, int(box.x0)), max(0, int(box.y0))
    x1, y1 = min(width, int(np.ceil(box.x1))), min(height, int(np.ceil(box.y1)))
    return np.ascontiguousarray(pixels[y0:y1, x0:x1]), Box(x0, y0, x1, y1)


def _png(pixels: Pixels) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", compress_level=6)
    return sink.getvalue()
