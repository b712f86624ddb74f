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
from pipelines.layout.arrange import Placed, arrange, as_text, place
from pipelines.layout.cues import title_level
from pipelines.layout.lines import COLUMN_GAP, TextLine, body_size, is_cjk, join, lines_of
from pipelines.layout.rules import around
from pipelines.recognize.agreement import agreement, disagrees
from pipelines.recognize.base import Reading
from pipelines.recognize.ocr import Line, LineReader
from pipelines.recognize.ocr_fast import FastLineReader
from pipelines.recognize.paragraphs import content
from pipelines.recognize.skew import Level, skew
from pipelines.recognize.tables import TableReader, without_rules
from pipelines.recognize.textlayer import paragraph, policy, trust, words_in
from pipelines.schema import Block, Box, Figure, Pixels, RasterPage, Region


class EmbeddedReader:
    """Reads whole pages; see `recognize/base.py`."""

    name = "embedded"

    def __init__(self, config: RecognizeConfig) -> None:
        self._policy = policy(config)
        self._deadline_s = config.deadline_s
        self._lines = FastLineReader(config.threads) if config.ocr == "tiny" else LineReader(config.threads)
        self._tables = TableReader(config.threads)

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
        found = [region for region in regions if region.native_label]  # what a model saw; the rest came from a text layer
        angle = skew(page.pixels)
        level = Level(angle, page.pixels.shape[1], page.pixels.shape[0]) if angle else None
        if level is not None:
            page, found = level.page(page), [level.region(region) for region in found]
        lines, whole = self._lines.read(page.pixels, until)
        per_line = (time.perf_counter() - started) / max(1, len(lines))
        placed = arrange(found, join([piece for line in lines for piece in _text_lines(line)]), page)
        weights = self.weights[:16]
        reading = self._reading(page, placed, lambda region: self._block(region, "pixels", self._lines.name, weights), per_line)
        if level is not None:
            for block in reading.blocks:
                block.box_px = level.back(block.box_px)
        reading.flags += [] if whole else ["reading_cut_short"]
        reading.timing = not whole
        return reading

    # -- both ----------------------------------------------------------------------------------------------------------

    def _reading(
        self, page: RasterPage, placed: Sequence[Placed], block_of: Callable[[Region], Block], per_line: float = 0.0
    ) -> Reading:
        reading = Reading([])
        every = [(piece.region.label, line) for piece in placed for line in piece.lines]
        body = body_size([line for label, line in every if label != "table"] or [line for _, line in every])
        for found in placed:
            started = time.perf_counter()
            table = self._table(found, page) if found.region.label == "table" else None
            pieces = [found] if table or found.region.label != "table" else as_text(found.lines, body)
            for piece in pieces:
                block = block_of(piece.region)
                block.content = content(block.label, piece.lines)
                sure = [line.confidence for line in piece.lines if line.confidence is not None]
                block.confidence = float(np.mean(sure)) if sure else None
                if block.label == "figure":
                    self._figure(block, page, reading)
                elif table:
                    block.html, block.rung = table
                    block.engine, block.weights = f"{block.engine} + {self._tables.name}", self.weights[:16]
                elif block.label == "title":
                    block.level = title_level(block.content, max(line.size for line in piece.lines), body)
                block.seconds = time.perf_counter() - started + per_line * len(piece.lines)
                started = time.perf_counter()
                if block.content or block.image:
                    reading.blocks.append(block)
        return reading

    def _block(self, region: Region, source: str, engine: str, weights: str) -> Block:
        return Block(region.label, region.box, "", source, engine, weights, native_label=region.native_label)

    def _table(self, piece: Placed, page: RasterPage) -> tuple[str, str | None] | None:
        """HTML and how it came about; None for what is no table."""
        words = [(text, place) for line in piece.lines for word, place in line.words if (text := without_rules(word))]
        crop, box = _crop(page.pixels, piece.region.box)
        inside = [(word, Box(b.x0 - box.x0, b.y0 - box.y0, b.x1 - box.x0, b.y1 - box.y0)) for word, b in words]
        found = self._tables.read(crop, inside) if crop.size and words else ("", None)
        return found if found[0] else None

    def _figure(self, block: Block, page: RasterPage, reading: Reading) -> None:
        crop, _ = _crop(page.pixels, block.box_px)
        if not crop.size:
            return
        data = _png(crop)
        block.image = f"{hashlib.sha256(data).hexdigest()}.png"
        reading.figures.append(Figure(block.image, data))


def _text_lines(line: Line) -> list[TextLine]:
    """A line that was read from pixels, cut where it crosses a gap as between columns; words without a place of their own get
    the share of its width that their letters have."""
    size = 0.8 * min(line.box.height, line.box.width)
    runs: list[list[tuple[str, Box]]] = []
    for word in line.words or words_along(line.text, line.box):
        if runs and word[1].x0 - runs[-1][-1][1].x1 < COLUMN_GAP * size:
            runs[-1].append(word)
        else:
            runs.append([word])
    if len(runs) < 2:
        return [TextLine(tuple(runs[0]) if runs else (), line.box, size, False, line.confidence)]
    return [TextLine(tuple(run), around([box for _, box in run]), size, False, line.confidence) for run in runs]


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
