"""Text lines with PP-OCRv6 small, whose weights are in `rapidocr`. The only importer of it.

Invariant: one session per worker, one thread, no network; detection once a page, then line by line, so that a line's text
never depends on its neighbours and a deadline can end the reading between two. Of the package the weights are used and what
turns maps into boxes; the calls of the models are ours: in batches, padded and with its settings a page cost 2.41 CPU-seconds,
so 1.47, the text equal letter by letter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.layout.embedded import package_file
from pipelines.layout.onnx import forgetting, open_model
from pipelines.schema import Box, Pixels

_MODELS = ("models/PP-OCRv6_det_small.onnx", "models/PP-OCRv6_rec_small.onnx")
_TILE = 32  # pixels: sides that detection takes are multiples of it
_SHORT, _LONG = 736, 4000  # pixels: a page is enlarged to the one and made smaller to the other
_WIDEST, _LEAST = 8, 30  # times its height that a picture may be wide, and pixels that it is high at least: else it is padded
_HEIGHT, _NARROWEST = 48, 16  # pixels of a line as recognition takes it


@dataclass(slots=True, frozen=True)
class Line:
    text: str
    box: Box  # pixels
    confidence: float
    words: tuple[tuple[str, Box], ...] = ()  # with their places in it, where the recognizer says them


class LineReader:
    """Verb `read`: a page's pixels become lines."""

    name = "rapidocr-3.10.0/PP-OCRv6-small"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._size: list[int] = []  # of the page before, as detection took it
        self.model_paths: list[Path] = [package_file("rapidocr", name) for name in _MODELS]

    @cached_property
    def _detector(self) -> Any:
        return open_model(self.model_paths[0], self._threads)

    @cached_property
    def _recognizer(self) -> Any:
        return open_model(self.model_paths[1], self._threads, keeps=False)  # line by line it needs little

    @cached_property
    def _letters(self) -> list[str]:
        """By class of the recognizer; class 0 is none, the last a blank."""
        return ["", *self._recognizer.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]

    @cached_property
    def _boxes_of(self) -> Any:
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        return DBPostProcess(thresh=0.3, box_thresh=0.5, max_candidates=1000, unclip_ratio=1.6, use_dilation=True)

    def read(self, pixels: Pixels, until: float) -> tuple[list[Line], bool]:
        """
        Args:
            pixels: (height, width, 3) uint8 RGB.
            until: `time.monotonic()` after which no further lines are begun.

        Returns:
            Lines from top to bottom, and whether all were read.
        """
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        lines: list[Line] = []
        for corners in self._detect(bgr):
            if time.monotonic() > until:
                return lines, False
            line = self._recognize(bgr, corners)
            if line.text.strip():
                lines.append(line)
        return lines, True

    def _detect(self, bgr: Pixels) -> npt.NDArray[np.float32]:
        """Corners of the lines, clockwise from the upper left, (n, 4, 2) in pixels, from top to bottom."""
        import cv2
        from rapidocr.ch_ppocr_det.main import TextDetector

        height, width = bgr.shape[:2]
        above = max(width // _WIDEST, _LEAST) if height <= _LEAST or width > _WIDEST * height else 0
        paper = np.median(bgr[::8, ::8], axis=(0, 1)).tolist()
        padded = cv2.copyMakeBorder(bgr, above, above, 0, 0, cv2.BORDER_CONSTANT, value=paper) if above else bgr
        tall = padded.shape[0]
        ratio = min(max(1.0, _SHORT / min(tall, width)), _LONG / max(tall, width))
        size = [max(1, round(side * ratio / _TILE)) * _TILE for side in (width, tall)]
        options = None if size == self._size else forgetting()
        self._size = size
        found = self._detector.run(None, {"x": _normal(cv2.resize(padded, size))[None]}, options)[0]
        boxes, _ = self._boxes_of(found, (tall, width))
        if not len(boxes):
            return np.zeros((0, 4, 2), np.float32)
        ordered: npt.NDArray[np.float32] = TextDetector.sorted_boxes(np.asarray(boxes)).astype(np.float32)
        ordered[:, :, 1] = np.clip(ordered[:, :, 1] - above, 0, height)
        return ordered

    def _recognize(self, bgr: Pixels, corners: npt.NDArray[np.float32]) -> Line:
        import cv2
        from rapidocr.utils.process_img import get_rotate_crop_image

        low, high = corners.min(axis=0), corners.max(axis=0)
        box = Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        if min(high - low) < 1:
            return Line("", box, 0.0)
        crop = get_rotate_crop_image(bgr, corners.copy())
        width = max(_NARROWEST, -(-_HEIGHT * crop.shape[1] // crop.shape[0]))
        shares = self._recognizer.run(None, {"x": _normal(cv2.resize(crop, (width, _HEIGHT)))[None]})[0][0]
        classes = shares.argmax(axis=1)
        steps = np.flatnonzero((classes != 0) & (classes != np.concatenate(([0], classes[:-1]))))
        letters = [self._letters[number] for number in classes[steps]]
        sure = shares.max(axis=1)[steps]
        text = "".join(letters)
        turned = box.height > box.width
        words = () if turned else _words(letters, ((steps + 0.5) / len(shares)).tolist(), box)
        return Line(text, box, float(sure.mean()) if len(sure) else 0.0, words)


def _normal(bgr: Pixels) -> npt.NDArray[np.float32]:
    """(height, width, 3) uint8 as (3, height, width) float32 from -1 to 1."""
    scaled = bgr.astype(np.float32)
    scaled *= np.float32(2 / 255)
    scaled -= np.float32(1)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _words(letters: Sequence[str], middles: Sequence[float], box: Box) -> tuple[tuple[str, Box], ...]:
    """Words with their places.

    Args:
        letters: of a line, blanks among them.
        middles: where in the line's width each stands, 0 to 1, rising.
    """
    found: list[tuple[str, Box]] = []
    start = 0
    for end in range(len(letters) + 1):
        if end < len(letters) and not letters[end].isspace():
            continue
        if end > start:
            pitch = (middles[end - 1] - middles[start]) / (end - 1 - start) if end - start > 1 else 1 / len(letters)
            left, right = middles[start] - pitch / 2, middles[end - 1] + pitch / 2
            left = max(left, (found[-1][1].x1 - box.x0) / box.width if found else 0.0)
            place = Box(box.x0 + left * box.width, box.y0, box.x0 + min(1.0, max(right, left)) * box.width, box.y1)
            found.append(("".join(letters[start:end]), place))
        start = end + 1
    return tuple(found)
