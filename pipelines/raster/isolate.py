"""The parent's end of the isolated rasterizer: one long-lived child, a deadline for each page.

Invariant: a call returns or raises a named error within its deadline, whatever the document does; the child that crashed,
hung or outgrew its memory is gone before the call ends, and the next call gets a new one.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np

from pipelines.errors import PageCrash, PagemillError, PageTimeout, by_code
from pipelines.schema import Box, Probe, RasterPage, Region, Word

_START_S = 120.0  # for the child's imports on a loaded machine: 2 s on a quiet one; no page's deadline


class IsolatedRasterizer:
    """A rasterizer whose native code runs in a child process. Not thread-safe: one per worker.

    Args:
        engine: pymupdf or pypdfium2, for PDFs; images always go through Pillow.
        deadline_s: of one page.
        memory_mib: address space that the child may take beyond what it starts with.
    """

    def __init__(self, engine: str, deadline_s: float, memory_mib: int) -> None:
        self._engine = engine
        self._deadline_s = deadline_s
        self._memory_mib = memory_mib
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._memory_fd = -1

    def probe(self, path: str, passwords: Sequence[str], deadline_s: float | None = None) -> Probe:
        """Opens a document in the child and counts its pages.

        Raises:
            EmptyFile, HtmlPage, UnsupportedFormat, Encrypted, DamagedDocument, NoPages,
            PageTimeout, PageMemory, PageCrash
        """
        request = {"verb": "probe", "path": str(path), "passwords": list(passwords)}
        answer = self._ask(request, deadline_s or self._deadline_s)
        return Probe(answer["format"], answer["page_count"], answer["password"], tuple(answer["flags"]))

    def render(self, path: str, passwords: Sequence[str], page_index: int, dpi: float, max_megapixels: float) -> RasterPage:
        """Renders one page; consecutive pages of a document do not open it again.

        Raises:
            PageDamaged, PageTimeout, PageMemory, PageCrash, and what `probe` raises
        """
        request = {
            "verb": "render", "path": str(path), "passwords": list(passwords), "page": page_index,
            "dpi": dpi, "max_megapixels": max_megapixels,
        }  # fmt: skip
        answer = self._ask(request, self._deadline_s)
        height, width = (int(side) for side in answer["shape"])
        width_pt, height_pt = (float(side) for side in answer["size"])
        with mmap.mmap(self._memory_fd, height * width * 3, prot=mmap.PROT_READ) as memory:
            pixels = np.frombuffer(memory, np.uint8).reshape(height, width, 3).copy()
        words, hidden = (tuple(map(_word, answer[kind])) for kind in ("words", "hidden"))
        hints = tuple(Region(label, Box(*box), 1.0, native) for label, *box, native in answer["hints"])
        flags, cpu_s = tuple(answer["flags"]), answer["cpu_s"]
        return RasterPage(pixels, answer["dpi"], width_pt, height_pt, words, hidden, flags, hints, cpu_s)

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    def __enter__(self) -> IsolatedRasterizer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def child_pid(self) -> int | None:
        return self._child.pid if self._child else None

    def _ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it ended between two calls (the kernel's OOM killer): no fault of what is asked now
        if self._child is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if not self._connection.poll(deadline_s):
                self.close()
                raise PageTimeout(f"not done within {deadline_s:g} s")
            answer = _object(self._connection.recv_bytes())
        except (EOFError, OSError):
            code = self._end_code()
            raise PageCrash(f"the process that was working on it ended with {code}") from None
        except ValueError:  # native code of it may have been taken over by what it reads
            self.close()
            raise PageCrash("the process that was working on it answered what it never does") from None
        if "error" in answer:
            kind = by_code().get(answer["error"], PagemillError)
            if answer["error"] == "PAGE_MEMORY":
                self.close()  # a heap that met its limit is not trusted with the next page
            refusal = kind(answer["message"])
            if answer.get("trace"):
                refusal.add_note(answer["trace"])
            raise refusal
        return answer

    def _end_code(self) -> str:
        assert self._child is not None
        try:
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        self.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._memory_fd = os.memfd_create("pagemill-page")
        command = [sys.executable, "-m", "pipelines.raster.child", str(theirs.fileno()), str(self._memory_fd)]
        with theirs:
            self._child = subprocess.Popen(
                [*command, self._engine, str(self._memory_mib)],
                pass_fds=(theirs.fileno(), self._memory_fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
            )
        self._connection = Connection(ours.detach())
        try:
            ready = self._connection.poll(_START_S) and self._connection.recv_bytes()
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.close()
            raise PagemillError(f"the rasterizer's child process does not start: is {self._engine} installed?")


def _word(plain: list[Any]) -> Word:
    text, x0, y0, x1, y1, line, size, bold = plain
    return Word(text, Box(x0, y0, x1, y1), line, size, bold)


def _object(data: bytes) -> dict[str, Any]:
    """
    Raises:
        ValueError: it is no JSON object.
    """
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"{type(found).__name__} in place of an object")
    return found
