"""Reader `embedded`: text from a trusted text layer, else from pixels with PP-OCRv6; tables with SLANet-plus; figures cut out.

Invariant: models load when a page needs them, so a run over born-digital documents never loads the OCR ones. Every line
that was read ends in exactly one block; lines outside all regions make blocks of their own.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from pipelines.config import RecognizeConfig
from pipelines.errors import EngineFailed
from pipelines.layout.arrange import Placed, arrange, place
from pipelines.layout.cues import title_level
from pipelines.layout.lines import TextLine, body_size, join, lines_of
from pipelines.recognize.agreement import agreement, disagrees
from pipelines.recognize.base import Reading
from pipelines.recognize.ocr import Line, LineReader
from pipelines.recognize.ocr_fast import FastLineReader
from pipelines.recognize.paragraphs import content
from pipelines.recognize.tables import TableReader
from pipelines.recognize.textlayer import is_cjk, paragraph, policy, trust, words_in
from pipelines.schema import Block, Box, Figure, Pixels, RasterPage, Region


class EmbeddedReader:
    """Reads whole pages; see `recognize/base.py`."""

    name = "embedded"

    def __init__(self, config: RecognizeConfig) -> None:
        self._policy = policy(config)
        self._deadline_s = config.deadline_s
        self._lines = FastLineReader(config.threads) if config.ocr == "tiny" else LineReader(config.threads)
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
        placed = place(regions, lines_of(page))
        return self._reading(page, placed, lambda region: self._block(region, "text_layer", "text layer", ""))

    # -- pixels --------------------------------------------------------------------------------------------------------

    def _from_pixels(self, page: RasterPage, regions: list[Region], until: float) -> Reading:
        started = time.perf_counter()
        lines, whole = self._lines.read(page.pixels, until)
        per_line = (time.perf_counter() - started) / max(1, len(lines))
        found = [region for region in regions if region.native_label]  # what a model saw; the rest came from a text layer
        placed = arrange(found, join(list(map(_text_line, lines))), page)
        weights = self.weights[:16]
        reading = self._reading(page, placed, lambda region: self._block(region, "pixels", self._lines.name, weights), per_line)
        reading.flags += [] if whole else ["reading_cut_short"]
        reading.timing = not whole
        return reading

    # -- both ----------------------------------------------------------------------------------------------------------

    def _reading(
        self, page: RasterPage, placed: Sequence[Placed], block_of: Callable[[Region], Block], per_line: float = 0.0
    ) -> Reading:
        reading = Reading([])
        body = body_size([line for piece in placed if piece.region.label != "table" for line in piece.lines])
        for piece in placed:
            started = time.perf_counter()
            block = block_of(piece.region)
            block.content = content(block.label, piece.lines)
            sure = [line.confidence for line in piece.lines if line.confidence is not None]
            block.confidence = float(np.mean(sure)) if sure else None
            if block.label == "figure":
                self._figure(block, page, reading)
            elif block.label == "table":
                self._table(block, page, [word for line in piece.lines for word in line.words])
            elif block.label == "title":
                block.level = title_level(block.content, max(line.size for line in piece.lines), body)
            block.seconds = time.perf_counter() - started + per_line * len(piece.lines)
            if block.content or block.image:
                reading.blocks.append(block)
        return reading

    def _block(self, region: Region, source: str, engine: str, weights: str) -> Block:
        return Block(region.label, region.box, "", source, engine, weights, native_label=region.native_label)

    def _table(self, block: Block, page: RasterPage, words: Sequence[tuple[str, Box]]) -> None:
        crop, box = _crop(page.pixels, block.box_px)
        inside = [(word, Box(b.x0 - box.x0, b.y0 - box.y0, b.x1 - box.x0, b.y1 - box.y0)) for word, b in words]
        if crop.size and words:
            found, block.rung = self._tables.read(crop, inside)
            block.html = found or None
            block.engine = f"{block.engine} + {self._tables.name}"
            block.weights = self.weights[:16]

    def _figure(self, block: Block, page: RasterPage, reading: Reading) -> None:
        crop, _ = _crop(page.pixels, block.box_px)
        if not crop.size:
            return
        data = _png(crop)
        block.image = f"{hashlib.sha256(data).hexdigest()}.png"
        reading.figures.append(Figure(block.image, data))


def _text_line(line: Line) -> TextLine:
    """A line that was read from pixels; words get the share of its width that their letters have."""
    return TextLine(
        words_along(line.text, line.box), line.box, 0.8 * min(line.box.height, line.box.width), False, line.confidence
    )


def words_along(text: str, box: Box) -> tuple[tuple[str, Box], ...]:
    """Words of a line with places in it, as if all letters were equally wide."""
    if box.height > 2 * box.width:
        return ((text, box),)
    widths = [2 if is_cjk(char) else 1 for char in text]
    unit = box.width / max(1, sum(widths))
    words, at, start, word = [], box.x0, box.x0, ""
    for char, width in zip(text + " ", [*widths, 1], strict=True):
        if char.isspace():
            if word:
                words.append((word, Box(start, box.y0, at, box.y1)))
            word, start = "", at + unit * width
        else:
            word += char
        at += unit * width
    return tuple(words)


def _disagreement(blocks: Sequence[Block], page: RasterPage) -> list[str]:
    """Fills how far each block's text agrees with what the trusted layer has there; a flag when one differs strongly."""
    flags: list[str] = []
    for block in blocks:
        layer = paragraph(words_in(Region(block.label, block.box_px, 1.0), page))
        block.agreement = agreement(block.content, layer)
        if disagrees(block.content, layer, block.agreement):
            flags = ["text_layer_disagrees"]
    return flags


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
