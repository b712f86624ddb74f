"""Formulas: boxes that know their size, set beside, above and under each other, with their LaTeX.

Invariant: `Box.tokens` joined is LaTeX that draws the box again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.synth.canvas import Pen, Sheet
from training.synth.pictures import Limits, Picture, Place, _margins, _pen

GREEK = {
    "\\alpha": "α", "\\beta": "β", "\\gamma": "γ", "\\delta": "δ",
    "\\theta": "θ", "\\lambda": "λ", "\\pi": "π", "\\sigma": "σ",
}  # fmt: skip
SIGNS = {"\\times": "×", "\\pm": "±", "\\leq": "≤", "\\geq": "≥", "\\neq": "≠", "\\infty": "∞"}
COMMANDS = ("\\frac", "\\sqrt", *GREEK, *SIGNS)
_LETTERS = "abcdefghkmnpqrstuvwxyzABCDEFGHKMNPQRSTVWXYZ"

Draw = Callable[[Sheet, float, float], list[Place]]


@dataclass(slots=True)
class Box:
    width: float
    above: float  # of the baseline, pixels
    below: float
    tokens: list[str]
    draw: Draw  # (sheet, x, baseline) -> place of each token


def _glyphs(pen: Pen, drawn: str, tokens: list[str] | None = None) -> Box:
    def draw(sheet: Sheet, x: float, baseline: float) -> list[Place]:
        return list(sheet.text(pen, x, baseline, drawn))

    return Box(pen.width(drawn), 0.75 * pen.size, 0.22 * pen.size, tokens or list(drawn), draw)


def _beside(parts: list[Box], gap: float, joint: str = "") -> Box:
    tokens: list[str] = []
    for nth, part in enumerate(parts):
        tokens += ([joint] if nth and joint else []) + part.tokens

    def draw(sheet: Sheet, x: float, baseline: float) -> list[Place]:
        places: list[Place] = []
        for nth, part in enumerate(parts):
            places += ([None] if nth and joint else []) + part.draw(sheet, x, baseline)
            x += part.width + gap
        return places

    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    return Box(width, max(part.above for part in parts), max(part.below for part in parts), tokens, draw)


def _script(base: Box, script: Box, sign: str, size: float) -> Box:
    """`base^{script}` or `base_{script}`."""
    shift = -0.38 * size if sign == "^" else 0.22 * size

    def draw(sheet: Sheet, x: float, baseline: float) -> list[Place]:
        places = base.draw(sheet, x, baseline)
        return [*places, None, None, *script.draw(sheet, x + base.width + 0.04 * size, baseline + shift), None]

    return Box(
        base.width + script.width + 0.08 * size, max(base.above, script.above - shift), max(base.below, script.below + shift),
        [*base.tokens, sign, "{", *script.tokens, "}"], draw,
    )  # fmt: skip


def _fraction(top: Box, bottom: Box, size: float) -> Box:
    width = max(top.width, bottom.width) + 0.3 * size
    axis, gap = 0.3 * size, 0.14 * size

    def draw(sheet: Sheet, x: float, baseline: float) -> list[Place]:
        y = baseline - axis
        sheet.rule(x, y, x + width, y, max(1.0, size / 18))
        upper = top.draw(sheet, x + (width - top.width) / 2, y - gap - top.below)
        lower = bottom.draw(sheet, x + (width - bottom.width) / 2, y + gap + bottom.above)
        return [None, None, *upper, None, None, *lower, None]

    tokens = ["\\frac", "{", *top.tokens, "}", "{", *bottom.tokens, "}"]
    return Box(width, axis + gap + top.below + top.above, gap - axis + bottom.above + bottom.below, tokens, draw)


def _root(inner: Box, pen: Pen) -> Box:
    size = pen.size
    sign = pen.width("√")

    def draw(sheet: Sheet, x: float, baseline: float) -> list[Place]:
        sheet.text(pen, x, baseline, "√")
        y = baseline - 0.8 * size
        sheet.rule(x + sign * 0.9, y, x + sign + inner.width + 0.1 * size, y, max(1.0, size / 18))
        return [None, None, *inner.draw(sheet, x + sign, baseline), None]

    return Box(
        sign + inner.width + 0.1 * size, max(inner.above, 0.9 * size), inner.below, ["\\sqrt", "{", *inner.tokens, "}"], draw
    )


def _atom(rng: random.Random, pen: Pen) -> Box:
    kind = rng.random()
    if kind < 0.5:
        return _glyphs(pen, rng.choice(_LETTERS))
    if kind < 0.8:
        return _glyphs(pen, str(rng.randrange(100)))
    name = rng.choice(list(GREEK))
    return _glyphs(pen, GREEK[name], [name])


def _term(rng: random.Random, pen: Pen, depth: int) -> Box:
    kind = rng.random()
    if depth == 0 or kind < 0.4:
        return _atom(rng, pen)
    if kind < 0.7:
        sign = rng.choice("^^_")
        return _script(_atom(rng, pen), _atom(rng, pen.at(0.7)), sign, pen.size)
    if kind < 0.88:
        small = pen.at(0.85)
        return _fraction(_sum(rng, small, 0), _sum(rng, small, 0), pen.size)
    return _root(_atom(rng, pen), pen)


def _sum(rng: random.Random, pen: Pen, depth: int) -> Box:
    parts = [_term(rng, pen, depth)]
    for _ in range(rng.choices((0, 1, 2), (4, 4, 2) if depth else (6, 3, 0))[0]):
        parts += [_glyphs(pen, rng.choice("+-")), _term(rng, pen, depth)]
    return _beside(parts, 0.22 * pen.size, " ")


def formula(rng: random.Random, limits: Limits) -> Picture:
    pen = _pen(rng, limits, [face for face in limits.faces if face.greek])
    whole = _sum(rng, pen, 1)
    if rng.random() < 0.7:
        name = rng.choice(["=", "=", "=", "<", ">", *SIGNS])
        relation = _glyphs(pen, SIGNS.get(name, name), [name])
        whole = _beside([whole, relation, _sum(rng, pen, 1)], 0.28 * pen.size, " ")
    left, top, right, bottom = _margins(rng, pen.size)
    sheet = Sheet(left + whole.width + right, top + whole.above + whole.below + bottom, pen.scale)
    places = whole.draw(sheet, left, top + whole.above)
    return Picture(sheet.finish(rng), "formula", ["\\[", " ", *whole.tokens, " ", "\\]"], [None, None, *places, None, None])
