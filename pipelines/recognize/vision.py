"""Stages `crop` and `recognize` for vision-language models: pages become questions, questions get answers.

Invariant: neither raises for a page or a crop. Every question ends with an answer, if only one that says why there is none.
A page's pixels end with `crop`: on its way to an engine and back it carries its questions, and what figures are stored of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np

from pipelines.config import Config, PaddleOcrVlConfig
from pipelines.errors import EngineFailed, EngineGone, UnusableCrop, traced
from pipelines.layout.orientation import turned
from pipelines.options import resolver
from pipelines.recognize import ladder
from pipelines.recognize.base import PREFERRED, Answer, Crop, VisionEngine
from pipelines.recognize.crops import plan_crops
from pipelines.recognize.plan import make_plan, pictured
from pipelines.recognize.textlayer import paragraph, policy, trust, words_by_region
from pipelines.schema import Box, PageError, PageWork, Pixels, RasterPage, Region, Span, SpanWork

FROM_LAYER = "text_layer"  # rung of an answer that the layer gave because the model could not
_LAYER_TASKS = frozenset({"ocr"})  # what a text layer can answer; tables, formulas, charts have a structure that it lacks

Form = Callable[[Crop], Crop]  # gives a crop the form in which its engine takes it


class CropPages:
    """Verb `crop`: fills `crops` and `answers` (None: to be asked) of every page that has regions, and drops its pixels."""

    def __init__(self, config: Config, form: Form) -> None:
        self._config = config
        self._of = resolver(config)
        self._form = form

    def crop(self, work: SpanWork) -> SpanWork:
        options = self._of(work.span.options).paddleocr_vl
        for page in work.pages:
            if page.error is not None or page.raster is None or page.regions is None:
                continue
            started, cpu = time.perf_counter(), time.thread_time()
            try:
                page.crops = plan_crops(page.raster, page.regions, options)
                page.answers = self._kept(page) or self._from_layer(page.raster, page.regions, page.crops)
                for index, crop in enumerate(page.crops):
                    page.crops[index], refused = self._formed(crop, page.answers[index] is None)
                    page.answers[index] = page.answers[index] or refused
                page.cuts = _figures(page.raster, page.regions, options)
                page.raster = replace(page.raster, pixels=_NOTHING)
            except Exception as error:  # a page on which planning fails is one page
                page.error = PageError(EngineFailed.code, "crop", f"{type(error).__name__}: {error}", traced(error))
            page.seconds["crop"] = time.perf_counter() - started
            page.cpu_s += time.thread_time() - cpu
        return work

    def _kept(self, page: PageWork) -> list[Answer | None] | None:
        """Of a page of which only some blocks are read again: what the others had for an answer."""
        if page.kept is None:
            return None
        answers = page.kept.answers(page.regions or [], page.crops)
        if answers is None:
            page.kept = None  # its blocks do not belong to its regions: it is read whole
            return None
        page.kept.asked.extend(answer is None for answer in answers)
        return answers

    def _formed(self, crop: Crop, asked: bool) -> tuple[Crop, Answer | None]:
        if not asked:
            return replace(crop, pixels=_NOTHING), None
        try:
            return without_pixels(self._form(crop)), None
        except UnusableCrop as error:
            return replace(crop, pixels=_NOTHING), Answer("", "error", error_code=error.code, error_message=str(error))

    def _from_layer(self, page: RasterPage, regions: Sequence[Region], crops: Sequence[Crop]) -> list[Answer | None]:
        """`prefer`: what a trustworthy text layer says, where it can; nobody is asked about that."""
        answers: list[Answer | None] = [None] * len(crops)
        if policy(self._config.recognize) != "prefer" or not trust(page).trusted:
            return answers
        words = words_by_region(regions, page)
        for index, crop in enumerate(crops):
            text = "\n".join(filter(None, (paragraph(words[i]) for i in crop.regions)))
            if crop.task in _LAYER_TASKS and text:
                answers[index] = Answer(text, rung=PREFERRED)
        return answers


def _figures(
    page: RasterPage, regions: Sequence[Region], options: PaddleOcrVlConfig
) -> list[tuple[tuple[int, int, int, int], Pixels]]:
    plan = make_plan(regions, page.pixels.shape[1], page.pixels.shape[0], options)
    boxes = {figure.box for figure in plan.figures} | {b.box for b in plan.blocks if b.label in pictured(options)}
    return [(box, page.pixels[box[1] : box[3], box[0] : box[2]].copy()) for box in sorted(boxes)]


_NOTHING: Pixels = np.empty((0, 0, 3), np.uint8)


def without_pixels(crop: Crop) -> Crop:
    """Without them once another form stands for the picture."""
    return replace(crop, pixels=_NOTHING) if crop.packed is not None or crop.encoded is not None else crop


Draw = Callable[[Span, int], Awaitable[RasterPage | None]]  # a page at a higher resolution; None: it cannot be had


class ReadCrops:
    """Verb `recognize`: an answer to every question of a span. Many spans at once share the engine."""

    def __init__(self, config: Config, engine: VisionEngine, form: Form, draw: Draw | None = None) -> None:
        self._config = config
        self._of = resolver(config)
        self._engine = engine
        self._form = form
        self._draw = draw

    async def recognize(self, work: SpanWork) -> SpanWork:
        """
        Raises:
            EngineGone: this process must end; nothing of the span is lost, it is read again.
        """
        await asyncio.gather(*(self._page(work.span, page) for page in work.pages if page.error is None))
        return work

    def close(self) -> None:
        self._engine.close()

    async def _page(self, span: Span, page: PageWork) -> None:
        started = time.perf_counter()
        asked = [index for index, answer in enumerate(page.answers) if answer is None]
        page.patches += sum(len(packed.patches) for index in asked if (packed := page.crops[index].packed) is not None)
        answers = await asyncio.gather(*(self._crop(span, page, page.crops[index]) for index in asked))
        for index, answer in zip(asked, answers, strict=True):
            page.answers[index] = answer
        page.timing = page.timing or any(answer.error_code == "CROP_TIMEOUT" for answer in answers)
        page.crops = [
            replace(crop, pixels=_NOTHING, packed=None, encoded=None) for crop in page.crops
        ]  # the pictures have served
        if page.crops:
            page.seconds["recognize"] = time.perf_counter() - started

    async def _crop(self, span: Span, page: PageWork, crop: Crop) -> Answer:
        async def redraw(blurred: Crop) -> Crop | None:
            return await self._sharper(span, page, blurred)

        try:
            return await ladder.read(self._engine, crop, self._config.recognize.ladder, redraw)
        except EngineGone:
            raise
        except Exception as error:  # of an engine that breaks its contract: costs this crop
            return Answer("", "error", error_code=EngineFailed.code, error_message=f"{type(error).__name__}: {error}")

    async def _sharper(self, span: Span, page: PageWork, crop: Crop) -> Crop | None:
        """The same question about the page at a higher resolution, where the document has one."""
        if page.unwarped:
            return None  # what flattens a page is in the layout stage
        drawn = await self._draw(span, page.page_index) if self._draw is not None else None
        if drawn is None or page.dpi is None or page.regions is None or drawn.dpi <= page.dpi * 1.05:
            return None
        drawn, factor = turned(drawn, page.turned or 0), drawn.dpi / page.dpi
        regions = [_scaled(region, factor) for region in page.regions]

        def again() -> Crop | None:
            for other in plan_crops(drawn, regions, self._of(span.options).paddleocr_vl):
                if other.regions == crop.regions and other.task == crop.task:
                    return without_pixels(self._form(other))
            return None

        return await asyncio.to_thread(again)


def _scaled(region: Region, factor: float) -> Region:
    polygon = tuple((x * factor, y * factor) for x, y in region.polygon)
    return replace(region, box=Box(*region.box).scaled(factor), polygon=polygon)
