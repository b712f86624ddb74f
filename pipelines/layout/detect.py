"""Stage `layout`: where the regions of a page are.

Invariant: it raises for no page; an engine that raises fails the pages of that span with its words.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipelines.config import LayoutConfig
from pipelines.errors import EngineFailed
from pipelines.layout.base import LayoutEngine
from pipelines.schema import Box, PageError, RasterPage, Region, SpanWork


class WholePage:
    """Layout engine `none`: one text region a page."""

    name = "none"
    weights = ""

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        return [[Region("text", Box(0, 0, page.pixels.shape[1], page.pixels.shape[0]), 1.0)] for page in pages]


def load_engine(config: LayoutConfig, threads: int) -> LayoutEngine:
    """
    Raises:
        ConfigError: its package is not installed.
    """
    if config.engine == "none":
        return WholePage()
    from pipelines.layout.embedded import EmbeddedLayout

    return EmbeddedLayout(config, threads)


class DetectLayout:
    """Verb `detect`: fills `regions` of every page that has pixels and is not blank."""

    def __init__(self, config: LayoutConfig, threads: int) -> None:
        self._engine = load_engine(config, threads)

    def detect(self, work: SpanWork) -> SpanWork:
        for page in work.pages:
            if page.error is not None or page.blank or page.raster is None:
                continue
            started, cpu = time.perf_counter(), time.thread_time()
            try:
                (page.regions,) = self._engine.detect([page.raster])
            except Exception as error:  # whatever an engine raises fails this page and no other
                page.error = PageError(EngineFailed.code, "layout", f"{type(error).__name__}: {error}")
            page.seconds["layout"] = time.perf_counter() - started
            page.cpu_s += time.thread_time() - cpu
        return work
