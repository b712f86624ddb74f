"""Text lines with PP-OCRv6 tiny inside `faster-paddle` (Rust, its own ONNX Runtime). The only importer of it.

Invariant: one engine per worker, no network: only the sizes whose weights are in the package are ever asked for.
"""

from __future__ import annotations

import io
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.errors import EngineFailed
from pipelines.layout.embedded import package_file
from pipelines.recognize.ocr import Line
from pipelines.schema import Box, Pixels


class FastLineReader:
    """Verb `read`: a page's pixels become lines. The whole page is one call, so a deadline can only prevent it."""

    name = "faster-paddle-1.0.4/PP-OCRv6-tiny"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.model_paths: list[Path] = [package_file("faster_paddle", "faster_paddle.abi3.so")]  # the weights are in it

    @cached_property
    def _engine(self) -> Any:
        from faster_paddle import OcrEngine

        return OcrEngine(model_size="tiny", threads=self._threads)

    def read(self, pixels: Pixels, until: float) -> tuple[list[Line], bool]:
        """As `ocr.LineReader.read`."""
        from PIL import Image

        if time.monotonic() > until:
            return [], False
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "BMP")  # no compression: 5 ms a page
        try:
            found = self._engine.ocr(picture.getvalue())["bounds"]
        except Exception:
            raise
        except BaseException as error:  # a panic in Rust is no Exception; it must fail this page, not the worker
            if type(error).__name__ != "PanicException":
                raise
            raise EngineFailed(f"faster-paddle: {error}") from None
        lines = [
            Line(entry["text"], _box(entry["topLeftCoord"], entry["bottomRightCoord"]), float(entry["confidence"]))
            for _, entry in sorted(found.items())
        ]
        return [line for line in lines if line.text.strip() and line.box.area > 0], True


def _box(low: tuple[float, float], high: tuple[float, float]) -> Box:
    return Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))
