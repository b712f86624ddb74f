"""Text with its places, as a model that was asked to spot it writes them.

Invariant: pure, never raises; coordinates are pixels of the page as it is, not as it was shown to the model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Quad = tuple[tuple[float, float], ...]  # four points

_TEXT = re.compile(r"<\|TEXT_START\|>(.*?)<\|TEXT_END\|>", re.S)
_PLACE = re.compile(r"<\|LOC_BEGIN\|>(.*?)<\|LOC_END\|>", re.S)
_NUMBER = re.compile(r"<\|LOC_(\d{1,300})\|>")  # with more digits the official code overflows a float
_GRID = 1000.0  # steps across the page


@dataclass(slots=True, frozen=True)
class Spotted:
    polys: tuple[Quad, ...]
    texts: tuple[str, ...]

    @property
    def content(self) -> str:
        return "\n\n".join(self.texts)


def spotted(answer: str, width: int, height: int) -> Spotted:
    """Marked texts with marked places, or, where none are, eight numbers after each text."""
    found = [
        (text.strip(), _quad(numbers[:8], width, height))
        for text, place in zip(_TEXT.findall(answer), _PLACE.findall(answer), strict=False)
        if len(numbers := [int(n) for n in _NUMBER.findall(place)]) >= 8
    ]
    if not found:
        matches = list(_NUMBER.finditer(answer))
        end = 0
        for at in range(0, len(matches) - 7, 8):
            group = matches[at : at + 8]
            text = answer[end : group[0].start()].strip()
            found.append((text, _quad([int(match.group(1)) for match in group], width, height)))
            end = group[-1].end()
    return Spotted(tuple(quad for _, quad in found), tuple(text for text, _ in found))


def _quad(numbers: list[int], width: int, height: int) -> Quad:
    return tuple((numbers[i] / _GRID * width, numbers[i + 1] / _GRID * height) for i in range(0, 8, 2))
