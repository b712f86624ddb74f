"""Stage `layout`: where the regions of a page are.

Invariant: it raises for no page; an engine that raises fails the page that it raised for, with its words. An engine that is
not there (ConfigError) is no page's fault: that ends the run. Pages go through an engine in micro-batches across the spans
of a block, and what a page gets never depends on its neighbours there.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import cast

from pipelines.config import Config, PaddleOcrVlConfig
from pipelines.errors import ConfigError, EngineFailed, traced
from pipelines.layout.base import LayoutEngine
from pipelines.layout.labels import own_label
from pipelines.layout.orientation import Orientation, turned
from pipelines.layout.unwarp import flattened, unwarper_of
from pipelines.layout.upright import upright_of
from pipelines.options import resolver
from pipelines.recognize.splice import laid_out
from pipelines.schema import Box, PageError, PageWork, RasterPage, Region, SpanWork


class WholePage:
    """Layout engine `none`: one region a page, of the kind that `paddleocr_vl.prompt_label` names."""

    name = "none"
    weights = ""
    batch_pages = 1

    def __init__(self, options: PaddleOcrVlConfig) -> None:
        self._label = options.prompt_label

    def with_options(self, options: PaddleOcrVlConfig) -> WholePage:
        return WholePage(options)

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        boxes = [Box(0, 0, page.pixels.shape[1], page.pixels.shape[0]) for page in pages]
        return [[Region(own_label(self._label), box, 1.0, self._label)] for box in boxes]


def load_engine(config: Config) -> LayoutEngine:
    """The configured engine; `module:Class` is one that the user brings, called with the whole configuration.

    Raises:
        ConfigError: its package or its model is not there.
    """
    if config.layout.engine == "none":
        return WholePage(config.paddleocr_vl)
    if config.layout.engine == "transformers":
        from pipelines.layout.transformers_engine import TransformersLayout

        return TransformersLayout(config.layout, config.paddleocr_vl)
    if config.layout.engine == "paddle":
        from pipelines.layout.paddle_engine import PaddleLayout

        return PaddleLayout(config.layout, config.paddleocr_vl)
    if ":" in config.layout.engine:
        module, _, name = config.layout.engine.partition(":")
        try:
            return cast(LayoutEngine, getattr(importlib.import_module(module), name)(config))
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"layout.engine={config.layout.engine}: {error}") from error
    if config.layout.engine == "pymupdf":
        from pipelines.layout.pymupdf_layout import PyMuPDFLayout

        if config.raster.engine != "pymupdf":
            raise ConfigError("layout.engine=pymupdf sees pages where PyMuPDF draws them: --set raster.engine=pymupdf")

        return PyMuPDFLayout(config.layout, config.recognize.threads)
    from pipelines.layout.embedded import EmbeddedLayout

    return EmbeddedLayout(config.layout, config.recognize.threads)


class DetectLayout:
    """Verb `detect`: fills `regions` of every page that has pixels and is not blank."""

    def __init__(self, config: Config) -> None:
        self._engine = load_engine(config)
        self._config = config
        self._of = resolver(config)
        self._engines: dict[str, LayoutEngine] = {"": self._engine}  # by options of documents; they share the model
        self._orientation: Orientation | None = None
        self._upright = upright_of(config)
        self._unwarper = unwarper_of(config)
        self._strict = config.paddleocr_vl.strict_parity

    def detect(self, works: list[SpanWork]) -> list[SpanWork]:
        for page in (page for work in works for page in work.pages if page.kept is not None):
            laid_out(page)
        by_options: dict[str, list[PageWork]] = {}
        for work in works:
            for page in filter(_wanted, work.pages):
                self._set_upright(page, self._of(work.span.options).paddleocr_vl.use_doc_orientation_classify)
                self._flatten(page)
            by_options.setdefault(work.span.options, []).extend(filter(_wanted, work.pages))
        for options, pages in by_options.items():
            engine = self._engine_of(options)
            for start in range(0, len(pages), engine.batch_pages):
                self._batch(engine, pages[start : start + engine.batch_pages])
        return works

    def _engine_of(self, options: str) -> LayoutEngine:
        """The engine with a document's options; one that has no use for any is the same for all."""
        if options not in self._engines:
            vary = getattr(self._engine, "with_options", None)
            self._engines[options] = vary(self._of(options).paddleocr_vl) if vary is not None else self._engine
        return self._engines[options]

    def _set_upright(self, page: PageWork, classify: bool) -> None:
        if page.raster is None or not (classify or self._upright):
            return
        cpu = time.thread_time()
        try:
            if classify:
                self._orientation = self._orientation or Orientation(self._config.recognize.threads)
                page.turned = self._orientation.angle(page.raster.pixels)
            elif self._upright is not None:
                page.turned = self._upright.angle(page.raster)
            page.raster = turned(page.raster, page.turned or 0, self._strict and classify)
        except Exception as error:
            page.error = PageError(EngineFailed.code, "layout", f"orientation: {type(error).__name__}: {error}", traced(error))
            return
        page.height_px, page.width_px = page.raster.pixels.shape[:2]
        page.width_pt, page.height_pt = page.raster.width_pt, page.raster.height_pt
        page.cpu_s += time.thread_time() - cpu

    def _flatten(self, page: PageWork) -> None:
        if self._unwarper is None or page.raster is None or page.error is not None:
            return
        if page.raster.words and not self._strict:
            return
        cpu = time.thread_time()
        try:
            page.raster, page.unwarped = flattened(page.raster, self._unwarper), True
        except ConfigError:
            raise
        except Exception as error:
            page.error = PageError(EngineFailed.code, "layout", f"unwarping: {type(error).__name__}: {error}", traced(error))
        page.cpu_s += time.thread_time() - cpu

    def _batch(self, engine: LayoutEngine, pages: Sequence[PageWork]) -> None:
        started, cpu = time.perf_counter(), time.thread_time()
        try:
            found: list[list[Region] | None] = [*engine.detect([page.raster for page in pages if page.raster is not None])]
        except ConfigError:
            raise
        except Exception as error:  # whatever an engine raises fails the page that it raises for, found by trying each alone
            if len(pages) > 1:
                for page in pages:
                    self._batch(engine, [page])
                return
            found = [None]
            pages[0].error = PageError(EngineFailed.code, "layout", f"{type(error).__name__}: {error}", traced(error))
        wall, spent = time.perf_counter() - started, time.thread_time() - cpu
        for page, regions in zip(pages, found, strict=True):
            page.regions = regions
            page.seconds["layout"] = wall / len(pages)
            page.cpu_s += spent / len(pages)


def _wanted(page: PageWork) -> bool:
    return page.error is None and not page.blank and page.raster is not None and page.kept is None
