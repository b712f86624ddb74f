"""Stage `finish` for vision-language models: answers become blocks, held against the text layer where one can be trusted.

Invariant: it raises for no page. Text work (repair, tables to HTML, comparing) is done here, on CPU workers, never where an
engine waits for it. A block says where its content came from: pixels, or the text layer and why.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from pipelines.config import Config, PaddleOcrVlConfig
from pipelines.errors import EngineFailed, traced
from pipelines.options import resolver
from pipelines.recognize.agreement import agreement, disagrees, without_tags
from pipelines.recognize.base import PREFERRED, Answer, Crop, Reading
from pipelines.recognize.repair import finish
from pipelines.recognize.textlayer import paragraph, policy, trust, words_by_region
from pipelines.recognize.vision import FROM_LAYER
from pipelines.schema import Block, Box, PageError, PageWork, Pixels, RasterPage, SpanWork, Word

_COMPARABLE = frozenset({"ocr", "table"})  # a formula's glyphs are no LaTeX, a chart's labels no table


@dataclass(slots=True, frozen=True)
class _Layer:
    """What a trustworthy text layer has, by region."""

    words: list[list[Word]]

    def text(self, crop: Crop) -> str:
        return "\n".join(filter(None, (paragraph(self.words[i]) for i in crop.regions)))


class FinishPages:
    """Verb `finish`: fills `blocks`, `figures` and flags of every page that was cropped."""

    def __init__(self, config: Config, engine: str, weights: str, fingerprint: str = "") -> None:
        self._config = config
        self._of = resolver(config)
        self._engine = engine
        self._weights = weights
        self._fingerprint = fingerprint

    def finish(self, work: SpanWork) -> SpanWork:
        for page in work.pages:
            if page.error is not None or page.raster is None or page.regions is None:
                continue
            started, cpu = time.perf_counter(), time.thread_time()
            try:
                reading = self._page(page, self._of(work.span.options).paddleocr_vl)
                if page.kept is not None:
                    page.kept.splice(page, reading, work.span.fingerprint or self._fingerprint)
                page.blocks, page.figures = reading.blocks, reading.figures
                page.flags += [flag for flag in reading.flags if flag not in page.flags]
            except Exception as error:  # costs this page and no other
                page.error = PageError(EngineFailed.code, "finish", f"{type(error).__name__}: {error}", traced(error))
            page.crops, page.answers, page.cuts, page.kept = [], [], [], None
            page.seconds["finish"] = time.perf_counter() - started
            page.cpu_s += time.thread_time() - cpu
        return work

    def _page(self, page: PageWork, options: PaddleOcrVlConfig) -> Reading:
        assert page.raster is not None
        assert page.regions is not None
        raster = replace(page.raster, pixels=_with_figures(page))
        layer = self._layer(raster, page)
        answers = [self._rescued(crop, answer, layer) for crop, answer in zip(page.crops, page.answers, strict=True)]
        reading = finish(raster, page.regions, page.crops, answers, options, self._engine, self._weights)
        by_box = {page.regions[crop.regions[0]].box: (crop, answer) for crop, answer in zip(page.crops, answers, strict=True)}
        for block in reading.blocks:
            if (found := by_box.get(Box(*block.box_px))) is not None:
                self._provenance(block, *found, layer, reading)
        return reading

    def _layer(self, raster: RasterPage, page: PageWork) -> _Layer | None:
        if policy(self._config.recognize) == "off" or not page.crops or not trust(raster).trusted:
            return None
        return _Layer(words_by_region(page.regions or [], raster))

    def _rescued(self, crop: Crop, answer: Answer | None, layer: _Layer | None) -> Answer:
        """The ladder's last rung: what the text layer says, where the model gave no usable answer."""
        if answer is None:  # asked of nobody: `recognize` was skipped
            return Answer("", "error", error_code=EngineFailed.code, error_message="not asked")
        failed = answer.error_code is not None or answer.finish_reason in ("length", "repetition") or not answer.text.strip()
        if not failed or layer is None or FROM_LAYER not in self._config.recognize.ladder:
            return answer
        text = layer.text(crop)
        if not text:
            return answer
        return replace(answer, text=text, finish_reason="stop", rung=FROM_LAYER, error_code=None, confidence=None)

    def _provenance(self, block: Block, crop: Crop, answer: Answer, layer: _Layer | None, reading: Reading) -> None:
        if answer.rung in (FROM_LAYER, PREFERRED):
            block.source, block.engine, block.weights, block.error_code, block.raw = "text_layer", "text layer", "", None, None
            if answer.rung == FROM_LAYER:
                _flag(reading, "text_layer_instead")
            else:
                block.rung = block.tokens = None
            return
        if layer is None or crop.task not in _COMPARABLE:
            return
        read, said = without_tags(block.html) if block.html else block.content, layer.text(crop)
        block.agreement = agreement(read, said)
        if disagrees(read, said, block.agreement):
            _flag(reading, "text_layer_disagrees")


def _flag(reading: Reading, flag: str) -> None:
    if flag not in reading.flags:
        reading.flags.append(flag)


def _with_figures(page: PageWork) -> Pixels:
    """A page of white with its figures: all that `finish` looks at."""
    pixels = np.full((page.height_px or 1, page.width_px or 1, 3), 255, np.uint8)
    for (x0, y0, x1, y1), cut in page.cuts:
        pixels[y0:y1, x0:x1] = cut
    return pixels
