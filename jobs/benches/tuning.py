"""The search behind `pagemill tune`: which engines, places, wave and tokens a step a card is fastest with, and how many CPU
workers keep up with it.

Memory decides what is tried, two rates decide when to stop: one engine's, and what the card would give if it were busy all
the time. Invariant: at most `MOST_STARTS` engines are started, and what stands beside a prediction was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipelines.config import Config
from pipelines.recognize.gpu_budget import Budget, budget

MOST_ENGINES = 4  # on the card at once
MOST_STARTS = MOST_ENGINES + 2  # and two with other steps, where one engine is the fastest
_PLACES = (1024, 512, 384, 256, 128, 64, 32, 16)  # four engines of 1,024 are the fastest on an H200 (docs/performance.md)
_ROUND_S = 25.0  # seconds of a round, at the rate that is expected
_ENOUGH = 0.97  # of what a busy card gives: another engine would gain nothing
_GAIN = 1.03  # less is noise
_LEAST_BATCHED = 4096  # a step takes the largest picture, and the tower is as fast as it gets (docs/performance.md)
_HEADROOM = 1.2  # CPU workers are as many as keep a card busy that for once is so much faster


@dataclass(slots=True, frozen=True)
class Candidate:
    engines: int
    places: int
    wave: int
    batched: int = 16_384  # tokens of a step


@dataclass(slots=True, frozen=True)
class Trial:
    """One measured candidate. `predicted`: pages/s by the model, before it was measured; None for the first."""

    candidate: Candidate
    predicted: float | None
    pages_per_s: float
    busy: float  # share of the time in which the card did something
    row: dict[str, Any]


@dataclass(slots=True, frozen=True)
class Workers:
    """A number of CPU workers of each kind, and the pages a second of the slowest kind."""

    count: int
    predicted: float
    pages_per_s: float


def fitting(config: Config, total: int, held: int) -> dict[int, tuple[int, Budget]]:
    """By number of engines: the most places of each that its share of the card can fill, and the arithmetic."""
    found: dict[int, tuple[int, Budget]] = {}
    for engines in range(1, MOST_ENGINES + 1):
        for places in _PLACES:
            needs = needs_of(config, Candidate(engines, places, 1, config.vllm.max_num_batched_tokens), total, held)
            if needs.answers == places:
                found[engines] = places, needs
                break
    return found


def steps_to_try(config: Config, places: int, total: int, held: int) -> list[int]:
    """Tokens of a step: as configured, then half and twice as many where one engine keeps the memory for its places."""
    usual = config.vllm.max_num_batched_tokens
    others = [other for other in (usual // 2, 2 * usual) if other >= _LEAST_BATCHED]
    return [usual, *(n for n in others if needs_of(config, Candidate(1, places, 1, n), total, held).answers == places)]


def needs_of(config: Config, candidate: Candidate, total: int, held: int) -> Budget:
    """The card's memory by item, with these engines on it."""
    changed = config.vllm.model_copy(
        update={
            "engines_per_gpu": candidate.engines,
            "max_num_seqs": candidate.places,
            "max_num_batched_tokens": candidate.batched,
        }
    )
    return budget(config.model_copy(update={"vllm": changed}), total, held)


class Card(Protocol):
    """What measures."""

    def starts(self, candidate: Candidate) -> int:
        """How many engines would have to be started for it."""
        ...

    def measure(self, candidate: Candidate, pages: int) -> tuple[float, float, dict[str, Any]]:
        """(pages/s, busy share of the card, the bench's row)."""
        ...


class Search:
    """
    Args:
        fits: of `fitting`.
        steps: tokens a step: the usual first, then others that are tried with one engine.
    """

    def __init__(self, fits: Mapping[int, tuple[int, Budget]], steps: Sequence[int], card: Card) -> None:
        self._fits, self._steps, self._card = fits, steps, card
        self._left = MOST_STARTS

    def trials(self) -> Iterator[Trial]:
        """Tries candidates until more engines cannot gain, then the best wave of one engine with other steps."""
        places, usual = self._fits[1][0], self._steps[0]
        narrow = yield from self._try(Candidate(1, places, max(1, places // 16), usual), None, 30)
        if narrow is None:
            return
        rate = narrow.pages_per_s
        wide = yield from self._try(Candidate(1, places, max(1, 3 * places // 16), usual), rate, _pages(rate))
        one = narrow if wide is None or wide.pages_per_s < rate else wide
        best = yield from self._more_engines(one)
        # Several engines keep the card busy between each other's steps: 32,768 tokens instead of 16,384 gave one engine on an
        # H200 14 % and four of them nothing (23.2 pages/s and 23.9).
        for other in self._steps[1:] if best is one else ():
            yield from self._try(replace(one.candidate, batched=other), one.pages_per_s, _pages(one.pages_per_s))

    def _more_engines(self, one: Trial) -> Generator[Trial, None, Trial]:
        """The fastest: `one`, or one of those with more engines."""
        ceiling = one.pages_per_s / max(0.01, one.busy)
        best = one
        for engines in sorted(set(self._fits) - {1}):
            if best.pages_per_s >= _ENOUGH * ceiling:
                break
            places = self._fits[engines][0]
            wave = max(1, one.candidate.wave * places // one.candidate.places)
            predicted = min(engines * one.pages_per_s, ceiling)
            trial = yield from self._try(Candidate(engines, places, wave, self._steps[0]), predicted, _pages(predicted))
            if trial and trial.pages_per_s > best.pages_per_s:
                best = trial
        return best

    def _try(self, candidate: Candidate, predicted: float | None, pages: int) -> Generator[Trial, None, Trial | None]:
        """None: it would take more starts than there are left."""
        starts = self._card.starts(candidate)
        if starts > self._left:
            return None
        self._left -= starts
        trial = Trial(candidate, predicted, *self._card.measure(candidate, pages))
        yield trial
        return trial


def _pages(rate: float) -> int:
    """Of a round: filling and emptying the engines takes seconds, and is most of a short one (204 pages on an H200: 15 pages/s of
    three engines that give 21)."""
    return min(900, max(30, round(rate * _ROUND_S)))


def chosen(trials: Sequence[Trial]) -> Trial:
    """The fastest; other tokens a step than the first trial's only where they gain more than noise."""
    usual = trials[0].candidate.batched
    best = max((trial for trial in trials if trial.candidate.batched == usual), key=lambda trial: trial.pages_per_s)
    fastest = max(trials, key=lambda trial: trial.pages_per_s)
    return fastest if fastest.pages_per_s >= _GAIN * best.pages_per_s else best


def layout_batch(ms_a_page: Mapping[int, float]) -> int:
    """The smallest micro-batch that is as fast as any but for noise: a longer one delays the engines beside it."""
    best = min(ms_a_page.values())
    return min(size for size, took in ms_a_page.items() if took <= _GAIN * best)


def enough_workers(
    pages_per_s: float, seconds: Sequence[float], cores: int, measure: Callable[[int], float]
) -> Iterator[Workers]:
    """Tries numbers of CPU workers until they keep up with the card, or the machine has no more cores.

    Args:
        pages_per_s: of the card.
        seconds: that a page costs a worker of each kind, alone on the machine; each kind has as many workers.
        measure: workers -> pages/s of the slowest kind, while all kinds are at work.
    """
    wanted = _HEADROOM * pages_per_s
    count = min(cores, max(1, math.ceil(wanted * max(seconds))))
    while True:
        found = Workers(count, min(count / max(seconds), cores / sum(seconds)), measure(count))
        yield found
        if found.pages_per_s >= wanted or count == cores:
            return
        count = min(cores, max(count + 1, math.ceil(count * wanted / max(found.pages_per_s, 0.01))))


def settings_of(
    best: Candidate, config: Config, total: int, held: int, workers: int | None = None, batch_pages: int | None = None
) -> dict[str, dict[str, Any]]:
    """As a configuration file has them.

    Args:
        total, held: bytes of the card, and of them what others hold.
        workers: of each CPU pool. batch_pages: of layout, where it runs on the card.
    """
    found: dict[str, dict[str, Any]] = {
        "recognize": {"engine": "vllm"},
        "vllm": {
            "engines_per_gpu": best.engines,
            "max_num_seqs": best.places,
            "wave": best.wave,
            "max_num_batched_tokens": best.batched,
            "gpu_memory_utilization": _share(needs_of(config, best, total, held)),
            "reserve_gib": config.vllm.reserve_gib,
        },
    }
    if batch_pages is not None:
        found["layout"] = {"batch_pages": batch_pages}
    if workers is not None:
        found["ray"] = {"workers": workers}
    return found


def _share(needs: Budget) -> float:
    """Of the card, for its engines together: what is left by all that is not theirs."""
    others = sum(item.bytes for item in needs.items if item.name.startswith(("layout", "desktop", "left free")))
    return math.floor((1 - others / needs.total) * 1000) / 1000
