"""Stage `rasterize`: a span's pages become pixels and words, each within its own deadline and memory limit.

Invariant: it raises for no page. A page that crashes, hangs or outgrows its memory fails alone; when the span's or the
document's allowance is used up, the pages that follow are not tried.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.config import RasterConfig
from pipelines.errors import BudgetExceeded, PageCrash, PageMemory, PagemillError, PageTimeout
from pipelines.raster.budget import LEAST_SHARE, DocumentBudget, SpanBudget
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.schema import PageError, PageWork, Pixels, RasterPage, SpanWork

_COSTLY = (PageTimeout, PageMemory, PageCrash)
_AS_STORED = 1200.0  # the most that an image file is believed to say of its resolution: at it no image is scaled down


class Rasterize:
    """Verb `rasterize`. Holds one child process for its whole life.

    Args:
        images_as_stored: keep the pixels of image files, whatever resolution they say (`strict_parity`: the official code
            looks at no resolution); `max_megapixels` holds all the same.
    """

    def __init__(self, config: RasterConfig, engine: str | None = None, images_as_stored: bool = False) -> None:
        self._config = config
        self._images_as_stored = images_as_stored
        self._rasterizer = IsolatedRasterizer(engine or config.engine, config.deadline_s, config.memory_mib)

    def rasterize(self, work: SpanWork, path: Path, budget: DocumentBudget, passwords: Sequence[str] = ()) -> SpanWork:
        """Fills `raster`, sizes, flags, `blank` or `error` of every page.

        Args:
            path: the document's bytes on this node.
            budget: the document's allowance on this node.
            passwords: tried in order where it is encrypted.
        """
        span_budget = SpanBudget(self._config.span_deadlines * self._config.deadline_s)
        for page in work.pages:
            started, cpu = time.perf_counter(), time.thread_time()
            if span_budget.exhausted() or budget.exhausted():
                page.error = PageError(BudgetExceeded.code, "rasterize", "not tried: earlier pages used up the allowance")
                page.timing = True
                continue
            try:
                self._fill(page, self._render(work.span.format, path, passwords, page.page_index))
            except _COSTLY as error:
                # at most one deadline: the start of a child that the page before had cost is not this page's
                charge = min(max(time.perf_counter() - started, LEAST_SHARE * self._config.deadline_s), self._config.deadline_s)
                span_budget.charge(charge)
                budget.charge(charge)
                page.timing = not isinstance(error, PageCrash)
                page.error = PageError(error.code, "rasterize", str(error))
            except PagemillError as error:
                page.error = PageError(error.code, "rasterize", str(error), "\n".join(getattr(error, "__notes__", ())))
            page.seconds["rasterize"] = time.perf_counter() - started
            page.cpu_s += time.thread_time() - cpu
        return work

    def close(self) -> None:
        self._rasterizer.close()

    def _render(self, form: str, path: Path, passwords: Sequence[str], page_index: int) -> RasterPage:
        config = self._config
        dpi = _AS_STORED if self._images_as_stored and form != "pdf" else config.dpi
        return self._rasterizer.render(str(path), list(passwords), page_index, dpi, config.max_megapixels)

    def _fill(self, page: PageWork, raster: RasterPage) -> None:
        page.raster = raster
        page.cpu_s += raster.cpu_s
        page.height_px, page.width_px = raster.pixels.shape[:2]
        page.width_pt, page.height_pt, page.dpi = raster.width_pt, raster.height_pt, raster.dpi
        page.flags += [flag for flag in raster.flags if flag not in page.flags]
        page.blank = not raster.words and is_blank(raster.pixels)


_DUST = 2e-5  # share of dark pixels on an empty scanned sheet, after specks of one pixel are averaged away
_CONTRAST = 48  # of 255, from the paper's own grey


def is_blank(pixels: Pixels) -> bool:
    """Whether a page shows nothing: paper of any one colour, with some dust.

    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    grey = pixels[..., 1]
    if min(grey.shape) < 8:
        return bool(np.ptp(grey) < _CONTRAST)
    height, width = (side // 4 * 4 for side in grey.shape)
    # sums of whole numbers, rows first: 1.3 ms of an A4 page at 144 dpi where a mean over both axes takes 7
    rows = np.ascontiguousarray(grey[:height, :width]).reshape(height // 4, 4, width).sum(axis=1, dtype=np.uint16)
    cells = (rows[:, 0::4] + rows[:, 1::4] + rows[:, 2::4] + rows[:, 3::4]) / 16
    paper = float(np.median(cells))
    return bool((np.abs(cells - paper) > _CONTRAST).mean() < _DUST)
