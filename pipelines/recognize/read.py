"""Stage `recognize` for readers of whole pages: what stands in the regions of a page.

Invariant: it raises for no page; a reader that raises fails that page with its words.
"""

from __future__ import annotations

import time

from pipelines.config import RecognizeConfig
from pipelines.errors import EngineFailed, traced
from pipelines.recognize.engines import load_reader
from pipelines.schema import PageError, SpanWork


class Recognize:
    """Verb `recognize`: fills `blocks`, `figures` and flags of every page that has regions."""

    def __init__(self, config: RecognizeConfig) -> None:
        self._reader = load_reader(config)

    def recognize(self, work: SpanWork) -> SpanWork:
        for page in work.pages:
            if page.error is not None or page.raster is None or page.regions is None:
                continue
            started, cpu = time.perf_counter(), time.process_time()
            try:
                reading = self._reader.read(page.raster, page.regions)
                page.blocks, page.figures = reading.blocks, reading.figures
                page.flags += [flag for flag in reading.flags if flag not in page.flags]
                page.timing = page.timing or reading.timing
            except Exception as error:  # whatever a reader raises fails this page and no other
                page.error = PageError(EngineFailed.code, "recognize", f"{type(error).__name__}: {error}", traced(error))
            page.seconds["recognize"] = time.perf_counter() - started
            page.cpu_s += time.process_time() - cpu
        return work
