"""Layout beside the engines of the bench `engine`: the pipeline's own detector, true shape, at a steady rate on the same card.

Kernels of different processes take turns on a card; what that costs decoding is seen by the same setup with and without.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.benches.engine import Setup

_BATCH = 4


class Beside:
    """A layout process that waits to be told a rate."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    @contextlib.contextmanager
    def at(self, rate: int) -> Iterator[dict[str, Any]]:
        """Layout reads `rate` pages a second while the context lasts; then the dictionary has what came of it."""
        seen: dict[str, Any] = {}
        if not rate:
            yield seen
            return
        self._pipe.send(rate)
        yield seen
        self._pipe.send(0)
        seen |= self._pipe.recv()


@contextlib.contextmanager
def beside(setups: Sequence[Setup], folder: Path, card: str) -> Iterator[Beside]:
    """Starts it where a setup wants it."""
    if not any(setup.layout for setup in setups):
        yield Beside(None)
        return
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, str(folder), card), daemon=True)
    process.start()
    ours.recv()  # ready
    try:
        yield Beside(ours)
    finally:
        process.kill()


def _serve(pipe: Any, folder: str, card: str) -> None:
    if card:
        os.environ["CUDA_VISIBLE_DEVICES"] = card
    import numpy as np

    from jobs.benches.layout import write_layout
    from pipelines.config import load
    from pipelines.layout.transformers_engine import TransformersLayout
    from pipelines.schema import RasterPage

    write_layout(Path(folder), "v3")
    config = load(settings=["layout.engine=transformers", f"layout.model_dir={folder}"])
    engine = TransformersLayout(config.layout, config.paddleocr_vl)
    page = RasterPage(np.random.default_rng(0).integers(0, 256, (1684, 1191, 3), dtype=np.uint8), 144, 595.3, 841.9, ())
    for _ in range(3):
        engine.detect([page] * _BATCH)
    pipe.send("ready")
    while rate := pipe.recv():
        began, took = time.monotonic(), list[float]()
        while not pipe.poll(max(0.0, began + len(took) * _BATCH / rate - time.monotonic())):
            started = time.monotonic()
            engine.detect([page] * _BATCH)
            took.append(time.monotonic() - started)
        pipe.recv()
        pages = len(took) * _BATCH
        pipe.send(
            {
                "layout pages/s": round(pages / (time.monotonic() - began), 1),
                "layout ms/batch": round(1000 * median(took)) if took else 0,
            }
        )
