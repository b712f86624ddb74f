"""Figures inside a table: the model sees a token in their place, and the token becomes the image again.

Invariant: pure but for the pixels handed to `paint`; a page's figures get the same tokens each time, whatever was read
before. No digit of a token is 0, 1 or 9, which a model may take for letters.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipelines import schema
from pipelines.schema import Pixels

IntBox = tuple[int, int, int, int]

_SEED = 1024  # the official shuffle, so that the same figure gets the same token
_LEAST = 25  # pixels of the shorter side: no token can be read that is smaller
_TOKEN = re.compile(r"\[F(\d+)\]")


@dataclass(slots=True, frozen=True)
class Figure:
    """An image or seal that layout found, as the official code names it."""

    region: int
    label: str
    box: IntBox

    @property
    def path(self) -> str:
        return image_path(self.label, self.box)


@dataclass(slots=True, frozen=True)
class Token:
    text: str  # "[F2]"
    figure: Figure


def image_path(label: str, box: IntBox) -> str:
    return f"imgs/img_in_{label}_box_{box[0]}_{box[1]}_{box[2]}_{box[3]}.jpg"


def held(table: IntBox, figures: Sequence[Figure]) -> list[Figure]:
    """The figures that lie in a table, edges included."""
    return [f for f in figures if f.box[0] >= table[0] and f.box[1] >= table[1] and f.box[2] <= table[2] and f.box[3] <= table[3]]


def tokens(table: IntBox, figures: Sequence[Figure]) -> tuple[Token, ...]:
    """Tokens of the figures in a table that are large enough to carry one."""
    numbers = _numbers(len(figures))
    inside = {id(figure) for figure in held(table, figures)}
    return tuple(
        Token(f"[F{number}]", figure)
        for number, figure in zip(numbers, figures, strict=True)
        if id(figure) in inside and min(figure.box[2] - figure.box[0], figure.box[3] - figure.box[1]) >= _LEAST
    )


def _numbers(count: int) -> list[int]:
    found: list[int] = []
    number = 0
    while len(found) < count:
        if not set(str(number)) & set("019"):
            found.append(number)
        number += 1
    random.Random(_SEED).shuffle(found)
    return found


def paint(crop: Pixels, table: IntBox, painted: Sequence[Token]) -> Pixels:
    """A copy of a table's crop with each figure white and its token in the middle of it."""
    import cv2

    crop = crop.copy()
    for token in painted:
        x0, y0, x1, y1 = (a - b for a, b in zip(token.figure.box, (table[0], table[1]) * 2, strict=True))
        cv2.rectangle(crop, (x0, y0), (x1, y1), (255, 255, 255), -1)
        scale, wide, high = _fitting(token.text, min(x1 - x0, y1 - y0))
        origin = x0 + (x1 - x0 - wide) // 2, y0 + (y1 - y0 + high) // 2
        cv2.putText(crop, token.text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), max(1, int(scale * 4)), cv2.LINE_AA)
    return crop


def _fitting(text: str, side: int) -> tuple[float, int, int]:
    """The largest scale at which a text fits nine tenths of a square, by bisection, and the last size tried."""
    import cv2

    low, high, best = 0.2, 10.0, 0.2
    wide = tall = 0
    while high - low > 1e-2:
        middle = (low + high) / 2
        (wide, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, middle, 1)
        if wide < side * 0.9 and tall < side * 0.9:
            best = low = middle
        else:
            high = middle
    return best, wide, tall


def named(text: str) -> set[str]:
    """The tokens that a text holds."""
    return {match.group(0) for match in _TOKEN.finditer(text)}


def resolve(
    html: str,
    painted: Sequence[Token],
    image: Callable[[Figure], str | None],
    content: Mapping[int, str],
    strict: bool,
) -> str:
    """A table's HTML with images instead of tokens.

    Args:
        image: where a figure's image is, None where it has none (the token stays).
        content: what was read inside a figure, by region; put behind it.
        strict: with the official code's stray quotation mark.
    """
    known = {token.text: token.figure for token in painted}

    def put(match: re.Match[str]) -> str:
        figure = known.get(match.group(0))
        source = image(figure) if figure is not None else None
        if figure is None or source is None:
            return match.group(0)
        inside = content.get(figure.region, "")
        tag = f'<img src="{source}" alt="Image"{chr(34) if strict else ""} />'
        return f"{tag}\n\n{inside}\n\n" if inside else tag

    return _TOKEN.sub(put, html)


def stored(pixels: Pixels) -> schema.Figure:
    """A figure as the file that lies beside the document's Markdown."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=95)  # the official pipeline's quality
    data = sink.getvalue()
    return schema.Figure(f"{hashlib.sha256(data).hexdigest()}.jpg", data)
