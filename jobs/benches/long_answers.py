"""Bench `long-answers`: what pages that wait for one long answer do to the engines of a card. Computed, not measured.

A block of pages is at an engine until its last answer is there. Where one answer in a hundred has 4,096 tokens, most blocks
wait for such a one, and the others' places stay empty unless more blocks may come. This plays one engine of several on a card,
step by step, with what a step costs by profile (docs/performance.md). Invariant: every crop gets a place once, and a block
ends with its last answer; numbers are the same in every run.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from jobs.benches.base import Figures

LONGEST = 4096
_CROPS_A_PAGE, _SPREAD, _TOKENS, _SIGMA = 17.2, 4.0, 32, 0.6  # as pages of the test corpus have them; tokens lognormal
_CROP_S = 0.027 / _CROPS_A_PAGE  # of kernels to take a crop in: tower and prompt, H200
_STEP_S = 0.0025  # of kernels of a decode step, without what its answers' contexts cost
_TOKEN_S = 18_432 / 4.3e12  # to read one token's keys and values from the card's memory, by its bandwidth
_PROMPT = 230  # tokens, with the picture's
_CROPS_A_STEP = 80  # new ones: 16,384 tokens
_EFFICIENCY = 0.8  # of engines that take turns: 24.8 known pages a second where kernels alone would allow 31


@dataclass(slots=True, frozen=True)
class Played:
    """What became of one engine's share of the pages."""

    seconds: float
    fed: float  # when the last block had come
    steps: int
    answers: int  # that went on, summed over steps


def long_answers(
    pages: Annotated[int, typer.Option(help="of all engines of the card")] = 6000,
    engines: Annotated[int, typer.Option(help="on the card")] = 3,
    places: Annotated[int, typer.Option(help="of each engine")] = 1024,
    wave: Annotated[int, typer.Option(help="places that are free before an engine is offered crops")] = 192,
    share: Annotated[list[float] | None, typer.Option(help="of crops whose answers have 4,096 tokens")] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="PAGES:BLOCK, ray.engine_pages and pages of a block; several times")
    ] = None,
) -> Figures:
    """Computes what pages that wait for one long answer do to a card's engines."""
    figures = Figures("long-answers", {"pages": pages, "engines": engines, "places": places, "wave": wave, "computed": True})
    for rare in share or [0.01, 0.003, 0.001]:
        for text in at or ["256:8", "512:8", "1024:8", "512:4", "2048:8"]:
            under_way, block = (int(number) for number in text.split(":"))
            played = play(blocks_of(pages // engines, block, rare), max(2, under_way // block), places, wave, engines)
            figures.rows.append(
                {"4,096 tokens": f"{rare:.1%}", "engine_pages": under_way, "block_pages": block, **_shown(played, pages)}
            )
    figures.notes.append("computed from what a step costs by profile; engines as a whole do 0.8 of what kernels alone would")
    return figures


def _shown(played: Played, pages: int) -> dict[str, Any]:
    return {
        "pages/s": round(pages / played.seconds, 1), "tail s": round(played.seconds - played.fed),
        "answers under way": round(played.answers / played.steps), "ms a step": round(1000 * played.seconds / played.steps),
    }  # fmt: skip


def blocks_of(pages: int, block: int, share: float) -> list[list[int]]:
    """Lengths of each block's answers."""
    drawn = random.Random(1)
    made = [
        [
            LONGEST if drawn.random() < share else max(2, round(drawn.lognormvariate(math.log(_TOKENS), _SIGMA)))
            for _ in range(max(8, round(drawn.gauss(_CROPS_A_PAGE, _SPREAD))))
        ]
        for _ in range(pages)
    ]
    return [[tokens for page in made[n : n + block] for tokens in page] for n in range(0, pages, block)]


class _Engine:
    """Places, waves and steps. An answer is [tokens left, context, its block]."""

    def __init__(self, places: int, wave: int, sharing: int) -> None:
        self._places, self._wave, self._sharing = places, wave, sharing
        self.waiting: deque[list[int]] = deque()
        self._offered: deque[list[int]] = deque()
        self._going: list[list[int]] = []

    def step(self) -> tuple[float, int, Iterator[int]]:
        """Seconds that it took, answers that went on, and the block of each that ended."""
        under_way = len(self._going) + len(self._offered)
        if not under_way or self._places - under_way >= self._wave:
            for _ in range(min(len(self.waiting), self._places - under_way)):
                self._offered.append(self.waiting.popleft())
        new = min(len(self._offered), _CROPS_A_STEP)
        going, contexts = self._going, sum(answer[1] for answer in self._going)
        seconds = (_STEP_S + contexts * _TOKEN_S + new * _CROP_S) * self._sharing / _EFFICIENCY
        for answer in going:
            answer[0] -= 1
            answer[1] += 1
        self._going = [answer for answer in going if answer[0] > 0]
        self._going += [self._offered.popleft() for _ in range(new)]
        return seconds, len(going), (answer[2] for answer in going if answer[0] <= 0)


def play(blocks: list[list[int]], at_once: int, places: int, wave: int, sharing: int) -> Played:
    """One engine until its last answer; `sharing` engines take turns on the card, `at_once` blocks are at this one."""
    engine, left, there, coming = _Engine(places, wave, sharing), [len(block) for block in blocks], 0, 0
    seconds, fed, steps, answers, open_blocks = 0.0, 0.0, 0, 0, len(blocks)
    while open_blocks:
        while coming < len(blocks) and there < at_once:
            engine.waiting.extend([tokens, _PROMPT, coming] for tokens in blocks[coming])
            there, coming, fed = there + 1, coming + 1, seconds
        took, went_on, ended = engine.step()
        seconds, steps, answers = seconds + took, steps + 1, answers + went_on
        for block in ended:
            left[block] -= 1
            if not left[block]:
                there, open_blocks = there - 1, open_blocks - 1
    return Played(seconds, fed, steps, answers)
