"""Pages that lie on their side or stand on their head are found, with more care than one look of the classifier gives.

Invariant: deterministic; a page is called turned only when its own text layer says how its lines run, or when all cuts of its
picture that hold text agree. Upside down needs a second witness: the model takes upright Arabic and Hebrew for it (.90 sure,
measured), so lines are read both ways and the better reading decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from pipelines.config import Config
from pipelines.layout.orientation import Orientation, prepared
from pipelines.schema import Pixels, RasterPage, Word

_SIDE = 224  # pixels of a cut
_SHORT = 256  # pixels of the page's short side when it is cut
_SURE = 0.8  # mean over the cuts: dense pages of the corpus have .85 to .93, sparse ones (wrong half of the time) .47 to .72
_INK, _CONTRAST = 0.02, 24  # share of a cut that is ink, and from what on; a cut with less is no witness
_SIDEWAYS = 0.7  # share of a layer's letters in lines that run up or down
_LEAST_LETTERS = 40
_BETTER = 3.0  # times as much must be read upside down; a page that does stand on its head gives 20, Arabic and Hebrew below 1


def upright_of(config: Config) -> Upright | None:
    """What turns pages, where the configuration wants it: `auto` for the embedded reader (models read what they are shown)."""
    wanted = config.layout.upright
    if wanted == "never" or (wanted == "auto" and config.recognize.engine != "embedded"):
        return None
    return Upright(config.recognize.threads)


class ReadsLines(Protocol):
    def read(self, pixels: Pixels, until: float) -> tuple[list[Any], bool]: ...


class Upright:
    """Verb `angle`. The model (6.8 MB, 25 ms a page) loads at the first page without a text layer."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._model = Orientation(threads)

    @property
    def weights(self) -> str:
        """SHA-256 (hex)."""
        return self._model.weights

    def angle(self, page: RasterPage) -> int:
        """Degrees (0, 90, 180, 270) by which the page must be turned counter-clockwise; 0 where nothing is certain."""
        if page.words:
            return _lean(page.words)
        angle = self._judge(page.pixels)
        return 0 if angle == 180 and not self._reads_better_upside_down(page.pixels) else angle

    def _judge(self, pixels: Pixels) -> int:
        if min(pixels.shape[:2]) < _SIDE:
            return 0
        cuts = _cuts(pixels)
        if not cuts:
            return 0
        shares = self._model.scores(np.stack([prepared(cut) for cut in cuts]))
        mean = shares.mean(axis=0)
        best = int(mean.argmax())
        return 90 * best if mean[best] >= _SURE and set(shares.argmax(axis=1).tolist()) == {best} else 0

    @cached_property
    def _lines(self) -> ReadsLines:
        from pipelines.recognize.ocr_fast import FastLineReader

        return FastLineReader(self._threads)

    def _reads_better_upside_down(self, pixels: Pixels) -> bool:
        height = pixels.shape[0]
        thirds = [pixels[height * k // 3 : height * (k + 1) // 3] for k in range(3)]
        band = max(thirds, key=lambda third: float(np.abs(np.diff(third[::2, ::2, 1].astype(np.int16), axis=1)).mean()))
        as_is, turned = (self._read(np.ascontiguousarray(some)) for some in (band, band[::-1, ::-1]))
        return turned > _BETTER * as_is

    def _read(self, pixels: Pixels) -> float:
        """How much is read, by letters, weighed by how sure the reader is."""
        lines, _ = self._lines.read(pixels, float("inf"))
        return float(sum(len(line.text) * max(0.0, line.confidence - 0.5) for line in lines))


def _cuts(pixels: Pixels) -> list[Pixels]:
    """Those of three squares along the page's long side that have text enough, (224, 224, 3)."""
    import cv2

    height, width = pixels.shape[:2]
    ratio = _SHORT / min(height, width)
    size = max(_SIDE, round(width * ratio)), max(_SIDE, round(height * ratio))
    small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_LINEAR)
    free_y, free_x = small.shape[0] - _SIDE, small.shape[1] - _SIDE
    corners = [(free_y * k // 2, free_x // 2) if free_y >= free_x else (free_y // 2, free_x * k // 2) for k in range(3)]
    squares = [small[y : y + _SIDE, x : x + _SIDE] for y, x in corners]
    return [cut for cut in squares if (np.abs(cut[..., 1] - np.median(cut[..., 1])) > _CONTRAST).mean() > _INK]


def _lean(words: Sequence[Word]) -> int:
    """The angle for a page whose text layer runs up (270) or down (90); 0 where most of it does neither."""
    lines: dict[int, list[Word]] = defaultdict(list)
    for word in words:
        lines[word.line].append(word)
    letters, up, down = 0, 0, 0
    for line in lines.values():
        count = sum(len(word.text) for word in line)
        letters += count
        first, last = line[0].box, line[-1].box
        rise = (first.y0 + first.y1 - last.y0 - last.y1) / 2
        if len(line) > 1 and abs(rise) > 3 * abs(first.x0 + first.x1 - last.x0 - last.x1) / 2:
            up, down = (up + count, down) if rise > 0 else (up, down + count)
    if letters < _LEAST_LETTERS:
        return 0
    return 270 if up > _SIDEWAYS * letters else 90 if down > _SIDEWAYS * letters else 0
