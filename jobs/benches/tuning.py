"""The search behind `pagemill tune`: which engines, places and wave a card is fastest with.

Memory decides what is tried, two rates decide when to stop: one engine's, and what the card would give if it were busy all
the time. Invariant: at most `MOST_ENGINES` engines are started, all at once, and what stands beside a prediction was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.config import Config
from pipelines.recognize.gpu_budget import Budget, budget

MOST_ENGINES = 4
_PLACES = (512, 384, 256, 128, 64, 32, 16)
_ROUND_S = 25.0  # seconds of a round, at the rate that is expected
_ENOUGH = 0.97  # of what a busy card gives: another engine would gain nothing


@dataclass(slots=True, frozen=True)
class Candidate:
    engines: int
    places: int
    wave: int


@dataclass(slots=True, frozen=True)
class Trial:
    """One measured candidate. `predicted`: pages/s by the model, before it was measured; None for the first."""

    candidate: Candidate
    predicted: float | None
    pages_per_s: float
    busy: float  # share of the time in which the card did something
    row: dict[str, Any]


def fitting(config: Config, total: int, held: int) -> dict[int, tuple[int, Budget]]:
    """By number of engines: the most places of each that its share of the card can fill, and the arithmetic."""
    found: dict[int, tuple[int, Budget]] = {}
    for engines in range(1, MOST_ENGINES + 1):
        for places in _PLACES:
            changed = config.vllm.model_copy(update={"engines_per_gpu": engines, "max_num_seqs": places})
            needs = budget(config.model_copy(update={"vllm": changed}), total, held)
            if needs.answers == places:
                found[engines] = places, needs
                break
    return found


def search(
    fits: dict[int, tuple[int, Budget]], measure: Callable[[Candidate, int], tuple[float, float, dict[str, Any]]]
) -> Iterator[Trial]:
    """Tries candidates until more engines cannot gain.

    Args:
        fits: of `fitting`.
        measure: (candidate, pages) -> (pages/s, busy share of the card, the bench's row).
    """
    places = fits[1][0]
    narrow, wide = max(1, places // 16), max(1, 3 * places // 16)
    pages = 30
    trials: list[Trial] = []
    for wave in (narrow, wide):
        rate, busy, row = measure(Candidate(1, places, wave), pages)
        pages = _pages(rate)
        trials.append(Trial(Candidate(1, places, wave), None if not trials else trials[0].pages_per_s, rate, busy, row))
        yield trials[-1]
    one = max(trials, key=lambda trial: trial.pages_per_s)
    ceiling = one.pages_per_s / max(0.01, one.busy)
    best = one.pages_per_s
    for engines in sorted(set(fits) - {1}):
        if best >= _ENOUGH * ceiling:
            return
        candidate = Candidate(engines, fits[engines][0], max(1, one.candidate.wave * fits[engines][0] // places))
        predicted = min(engines * one.pages_per_s, ceiling)
        rate, busy, row = measure(candidate, _pages(predicted))
        yield Trial(candidate, predicted, rate, busy, row)
        best = max(best, rate)


def _pages(rate: float) -> int:
    """Of a round: filling and emptying the engines takes seconds, and is most of a short one (204 pages on an H200: 15 pages/s of
    three engines that give 21)."""
    return min(900, max(30, round(rate * _ROUND_S)))


def settings_of(trial: Trial, config: Config) -> dict[str, dict[str, Any]]:
    """As a configuration file has them."""
    return {
        "recognize": {"engine": "vllm"},
        "vllm": {
            "engines_per_gpu": trial.candidate.engines,
            "max_num_seqs": trial.candidate.places,
            "wave": trial.candidate.wave,
            "max_num_batched_tokens": config.vllm.max_num_batched_tokens,
            "gpu_memory_utilization": config.vllm.gpu_memory_utilization,
            "reserve_gib": config.vllm.reserve_gib,
        },
    }
