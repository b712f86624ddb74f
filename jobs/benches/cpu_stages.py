"""What the CPU stages before an engine make: pages drawn and pages of crops packed, by workers side by side.

Invariant: no engine and no card is touched; drawing happens in the pipeline's own isolated children, packing in processes.
"""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from jobs.benches.engine_worker import pack_page
from jobs.benches.workloads import BUDGET, Job, known, picture
from pipelines.config import RasterConfig
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.recognize.pack import pack

_ROUND_S = 4.0


class CpuStages:
    """Draws first pages of PDFs and packs pages of the bench's known workload."""

    def __init__(self, raster: RasterConfig, documents: Sequence[Path]) -> None:
        self._raster = raster
        self._documents = [path for path in documents if path.suffix.lower() == ".pdf"]
        self._pages: list[list[Job]] = known(8, 5)

    def seconds(self) -> tuple[float, float]:
        """That drawing a page and packing one take, each alone on the machine."""
        with self._rasterizer() as rasterizer:
            self._draw(rasterizer, self._documents[0])  # the child starts
            began = time.perf_counter()
            for path in self._documents[:10]:
                self._draw(rasterizer, path)
            drawing = (time.perf_counter() - began) / len(self._documents[:10])
        packing = sum(pack_page(jobs, number)[1] for number, jobs in enumerate(self._pages[:4])) / 4
        return drawing, packing

    def pages_per_s(self, workers: int, round_s: float = _ROUND_S) -> float:
        """Of the slower of both, so many workers of each at work for some seconds."""
        with ExitStack() as stack:
            drawers = [stack.enter_context(self._rasterizer()) for _ in range(workers)]
            threads = stack.enter_context(ThreadPoolExecutor(workers))
            list(threads.map(lambda drawer: self._draw(drawer, self._documents[0]), drawers))  # the children start
            packers = [stack.enter_context(_Packer(self._pages)) for _ in range(workers)]
            for packer in packers:
                packer.wait()
            drawn = [threads.submit(self._draw_for, drawer, round_s) for drawer in drawers]
            for packer in packers:
                packer.begin(round_s)
            return min(sum(packer.wait() for packer in packers), sum(future.result() for future in drawn))

    def _rasterizer(self) -> IsolatedRasterizer:
        return IsolatedRasterizer(self._raster.engine, self._raster.deadline_s, self._raster.memory_mib)

    def _draw_for(self, drawer: IsolatedRasterizer, seconds: float) -> float:
        """Pages a second."""
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self._draw(drawer, self._documents[count % len(self._documents)])
            count += 1
        return count / (time.perf_counter() - began)

    def _draw(self, drawer: IsolatedRasterizer, path: Path) -> None:
        drawer.render(str(path), [], 0, self._raster.dpi, self._raster.max_megapixels)


class _Packer:
    """A process that packs pages whose pictures it has drawn before; says 0.0 when they are there."""

    def __init__(self, pages: list[list[Job]]) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_pack_when_asked, args=(pages, theirs), daemon=True)

    def __enter__(self) -> _Packer:
        self._process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.join()

    def begin(self, seconds: float) -> None:
        self._pipe.send(seconds)

    def wait(self) -> float:
        """Pages a second of the round that was begun."""
        if not self._pipe.poll(60):
            raise RuntimeError("a packing worker does not answer")
        return float(self._pipe.recv())


def _pack_when_asked(pages: list[list[Job]], pipe: Connection) -> None:
    drawn = [[picture(job, number) for number, job in enumerate(page)] for page in pages]
    pipe.send(0.0)
    while True:
        seconds = pipe.recv()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for pixels in drawn[count % len(drawn)]:
                pack(pixels, *BUDGET)
            count += 1
        pipe.send(count / (time.perf_counter() - began))
