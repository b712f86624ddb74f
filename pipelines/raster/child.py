"""The child process in which all native code that touches a document runs.

Invariant: it can be killed at any instant and costs one page; it imports no Ray, tells its parent JSON only, hands pixels
over in an anonymous memory file that disappears with the last of the two, and dies with its parent.

    python -m pipelines.raster.child SOCKET_FD MEMORY_FD ENGINE MEMORY_MIB
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import time
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pipelines.errors import DamagedDocument, PageMemory, as_named, traced
from pipelines.raster.base import Rasterizer
from pipelines.raster.sniff import sniff
from pipelines.schema import RasterPage, Word

WITH_LAYOUT = "pymupdf-layout"  # MuPDF, and its layout model beside it
_PR_SET_PDEATHSIG = 1
_OTHER = {"pymupdf": "pypdfium2", "pypdfium2": "pymupdf"}  # what one library cannot open, the other sometimes can


def main(arguments: list[str]) -> None:
    socket_fd, memory_fd, engine, memory_mib = int(arguments[0]), int(arguments[1]), arguments[2], int(arguments[3])
    _detach()
    servant = _Servant(engine, memory_fd)
    servant.warm()
    _limit(memory_mib)
    connection = Connection(socket_fd)
    connection.send_bytes(b'"ready"')
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            answer = servant.answer(request)
        except MemoryError as error:
            answer = {
                "error": PageMemory.code,
                "message": str(error) or "an allocation beyond the page's memory limit failed",
            }
        except Exception as error:  # named for the parent, which raises it
            named = as_named(error)
            answer = {"error": named.code, "message": str(named), "trace": traced(error)}
        connection.send_bytes(json.dumps(answer).encode())


class _Servant:
    def __init__(self, engine: str, memory_fd: int) -> None:
        self._engine = engine
        self._memory_fd = memory_fd
        self._engines: dict[str, Rasterizer] = {}
        self._current: tuple[str, Rasterizer] | None = None
        self._rescued = False  # the document was opened by the second engine only

    def warm(self) -> None:
        self._rasterizer(self._engine)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["verb"] == "probe":
            self._close()
            probe = self._open(request)
            return {
                "format": probe.format,
                "page_count": probe.page_count,
                "password": probe.password,
                "flags": probe.flags,
            }
        if self._current is None or self._current[0] != request["path"]:
            self._close()
            self._open(request)
        assert self._current is not None
        cpu = time.process_time()
        page = self._current[1].render(request["page"], request["dpi"], request["max_megapixels"])
        self._hand_over(page)
        height, width = page.pixels.shape[:2]
        return {
            "shape": [height, width], "dpi": page.dpi, "size": [page.width_pt, page.height_pt],
            "flags": sorted({*page.flags, "repaired"}) if self._rescued else page.flags,
            "words": _plain(page.words), "hidden": _plain(page.hidden_words), "cpu_s": time.process_time() - cpu,
            "hints": [[region.label, *(round(side, 1) for side in region.box), region.native_label] for region in page.hints],
        }  # fmt: skip

    def _open(self, request: dict[str, Any]) -> Any:
        kind = sniff(request["path"])
        rasterizer = self._rasterizer(self._engine if kind == "pdf" else "pillow")
        self._rescued = False
        try:
            probe = rasterizer.open(request["path"], request["passwords"])
        except DamagedDocument:
            other = _OTHER.get(rasterizer.name)
            if other is None or find_spec(other) is None:
                raise
            rasterizer.close()
            rasterizer = self._rasterizer(other)
            probe = rasterizer.open(request["path"], request["passwords"])
            self._rescued = True
            probe = dataclasses.replace(probe, flags=tuple({*probe.flags, "repaired"}))
        self._current = request["path"], rasterizer
        return probe

    def _close(self) -> None:
        if self._current is not None:
            self._current[1].close()
            self._current = None

    def _rasterizer(self, name: str) -> Rasterizer:
        if name not in self._engines:
            self._engines[name] = make_rasterizer(name)
        return self._engines[name]

    def _hand_over(self, page: RasterPage) -> None:
        """Written, not mapped: a mapping's pages are entered one by one, 3.7 ms of an A4 page at 144 dpi against 0.1."""
        data, at = np.ascontiguousarray(page.pixels).data.cast("B"), 0
        while at < len(data):
            at += os.pwrite(self._memory_fd, data[at:], at)


def make_rasterizer(name: str) -> Rasterizer:
    if name in ("pymupdf", WITH_LAYOUT):
        from pipelines.raster.pymupdf_engine import PyMuPDFRasterizer

        return PyMuPDFRasterizer(layout=name == WITH_LAYOUT)
    if name == "pypdfium2":
        from pipelines.raster.pdfium_engine import PdfiumRasterizer

        return PdfiumRasterizer()
    from pipelines.raster.image_engine import ImageRasterizer

    return ImageRasterizer()


def _plain(words: tuple[Word, ...]) -> list[list[Any]]:
    return [[word.text, *(round(side, 2) for side in word.box), word.line, round(word.size, 2), word.bold] for word in words]


def _detach() -> None:
    """Signals of a terminal or a job manager are for the driver; the end of the parent is ours; native chatter is nobody's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def _limit(memory_mib: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    most = used + (memory_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1:])
