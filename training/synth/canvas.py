"""A sheet that glyphs are pressed onto, fast enough to feed a GPU: glyphs are rasterized once and copied.

Invariant: `place`d characters are remembered in the order of the answer, with the centre of their ink in pixels of the
finished picture; what is remembered is what was drawn.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from training.synth.faces import Face, font

Grey = npt.NDArray[np.uint8]


@dataclass(slots=True, frozen=True)
class Glyph:
    ink: Grey  # (h, w) coverage
    left: int  # from the pen to the ink
    top: int  # from the baseline, up is negative
    advance: float


class _Case(dict[str, Glyph]):
    """The glyphs of one face at one size, rasterized when first asked for; a few characters at once where faces join them."""

    def __init__(self, face: Face, size: int, folder: Path | None, shaped: bool) -> None:
        super().__init__()
        self._font = font(face, size, folder, shaped)

    def __missing__(self, character: str) -> Glyph:
        mask, (left, top) = self._font.getmask2(character, mode="L", anchor="ls")
        ink = np.asarray(mask, dtype=np.uint8).reshape(mask.size[::-1])
        made = self[character] = Glyph(ink, left, top, self._font.getlength(character))
        return made


@lru_cache(maxsize=4096)
def _case(face: Face, size: int, folder: Path | None, shaped: bool) -> _Case:
    return _Case(face, size, folder, shaped)


_JOINED = re.compile(r"ff[il]|f[fil]|tt|--|->|<-|\(c\)|.", re.DOTALL)  # the ligatures of the faces that are drawn


class Pen:
    """A face at a size, drawn `scale` times as large and brought down at the end (1: hinted, as screens do).

    shaped: with the face's ligatures. tracking: pixels of the finished picture between two characters, beside their own.
    """

    def __init__(
        self, face: Face, size: float, scale: int, folder: Path | None, shaped: bool = False, tracking: float = 0.0
    ) -> None:
        self.face, self.size, self.scale, self.folder = face, size, scale, folder
        self.shaped, self.tracking = shaped, tracking
        self.glyphs = _case(face, max(6, round(size * scale)), folder, shaped)

    def at(self, share: float) -> Pen:
        return Pen(self.face, self.size * share, self.scale, self.folder, self.shaped, self.tracking * share)

    def pieces(self, text: str) -> Sequence[str]:
        """What is drawn at once: characters, or what a face may join."""
        return _JOINED.findall(text) if self.shaped else text

    def width(self, text: str) -> float:
        """In pixels of the finished picture."""
        glyphs, pieces = self.glyphs, self.pieces(text)
        return sum([glyphs[piece].advance for piece in pieces]) / self.scale + self.tracking * len(pieces)


class Sheet:
    """`width` x `height` pixels of the finished picture."""

    def __init__(self, width: float, height: float, scale: int) -> None:
        self.scale = scale
        self._ink = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), np.uint8)

    def text(self, pen: Pen, x: float, baseline: float, text: str) -> list[tuple[float, float]]:
        """Draws `text` from `x`; returns the centre of each character's place, in pixels of the finished picture."""
        pen_x, centres = x * self.scale, []
        y = round(baseline * self.scale)
        middle = baseline - 0.3 * pen.size
        for piece in pen.pieces(text):
            mark = pen.glyphs[piece]
            self._press(mark.ink, round(pen_x) + mark.left, y + mark.top)
            share = mark.advance / len(piece)
            centres += [((pen_x + (nth + 0.5) * share) / self.scale, middle) for nth in range(len(piece))]
            pen_x += mark.advance + pen.tracking * self.scale
        return centres

    def rule(self, x0: float, y0: float, x1: float, y1: float, thickness: float = 1.0) -> None:
        """A filled bar, horizontal or vertical."""
        wide = max(1, round(thickness * self.scale))
        left, top = round(x0 * self.scale), round(y0 * self.scale)
        right = round(x1 * self.scale) if x1 > x0 else left + wide
        bottom = round(y1 * self.scale) if y1 > y0 else top + wide
        self._ink[max(0, top) : bottom, max(0, left) : right] = 255

    def _press(self, ink: Grey, left: int, top: int) -> None:
        height, width = self._ink.shape
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + ink.shape[1]), min(height, top + ink.shape[0])
        if x0 < x1 and y0 < y1:
            under = self._ink[y0:y1, x0:x1]
            np.maximum(under, ink[y0 - top : y1 - top, x0 - left : x1 - left], out=under)

    def finish(self, rng: random.Random) -> Grey:
        """The picture (height, width) uint8, in some ink on some paper."""
        ink = self._ink
        if self.scale > 1:
            size = (max(1, round(ink.shape[1] / self.scale)), max(1, round(ink.shape[0] / self.scale)))
            ink = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BOX))
        paper, dark = rng.randint(225, 255), rng.randint(0, 90)
        if rng.random() < 0.5:
            paper, dark = 255, 0
        levels = np.linspace(paper, dark, 256).round().astype(np.uint8)
        if rng.random() < 0.06:
            levels = 255 - levels  # light on dark
        picture = levels[ink]
        return _worn(rng, picture) if rng.random() < 0.15 else picture


def _worn(rng: random.Random, picture: Grey) -> Grey:
    """Blurred a little, or with the noise of a scan."""
    if rng.random() < 0.5:
        return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6))))
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(picture.shape, dtype=np.float32) * rng.uniform(2, 10)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)
