"""Text lines with PP-OCRv6 inside `rapidocr`. The only importer of it.

Invariant: one session per worker, one thread, no network; detection once a page, recognition in small batches so that a
deadline can end it between two.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.layout.embedded import package_file
from pipelines.schema import Box, Pixels

_BATCH = 6  # lines; batch 1 costs a tenth less CPU, larger ones more memory (581 against 919 MiB at 6)
_MODELS = ("models/PP-OCRv6_det_small.onnx", "models/PP-OCRv6_rec_small.onnx")


@dataclass(slots=True, frozen=True)
class Line:
    text: str
    box: Box  # pixels
    confidence: float


class LineReader:
    """Verb `read`: a page's pixels become lines."""

    name = "rapidocr-3.10.0/PP-OCRv6-small"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.model_paths: list[Path] = [package_file("rapidocr", name) for name in _MODELS]

    @cached_property
    def _engine(self) -> Any:
        from rapidocr import RapidOCR

        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        return RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.use_cls": False,
                "Global.max_side_len": 4000,
                "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Rec.rec_batch_num": _BATCH,
            }
        )

    def read(self, pixels: Pixels, until: float) -> tuple[list[Line], bool]:
        """
        Args:
            pixels: (height, width, 3) uint8 RGB.
            until: `time.monotonic()` after which no further lines are begun.

        Returns:
            Lines from top to bottom, and whether all were read.
        """
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        found = self._engine(bgr, use_det=True, use_cls=False, use_rec=False)
        boxes = [] if found.boxes is None else list(found.boxes)
        lines: list[Line] = []
        for start in range(0, len(boxes), _BATCH * 4):
            if time.monotonic() > until:
                return lines, False
            lines += self._recognize(bgr, boxes[start : start + _BATCH * 4])
        return lines, True

    def _recognize(self, bgr: Pixels, boxes: list[Any]) -> list[Line]:
        from rapidocr.utils.process_img import get_rotate_crop_image

        crops = [get_rotate_crop_image(bgr, np.asarray(box, np.float32)) for box in boxes]
        read = self._engine.recognize_txt(crops)
        lines = []
        for text, score, box in zip(read.txts or [], read.scores or [], boxes, strict=True):
            corners = np.asarray(box, np.float64)
            low, high = corners.min(axis=0), corners.max(axis=0)
            if text.strip():
                lines.append(Line(text, Box(float(low[0]), float(low[1]), float(high[0]), float(high[1])), float(score)))
        return lines
