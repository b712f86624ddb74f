"""The search behind `pagemill tune`, with cards that are functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.benches.tuning import MOST_ENGINES, Candidate, fitting, search, settings_of
from jobs.tune import tune
from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.recognize import gpu_memory
from pipelines.recognize.gpu_budget import GIB


def card(one: float, most: float) -> Any:
    """A card on which an engine gives `one` pages/s and all together at most `most`; small waves cost a fifth."""
    seen: list[tuple[Candidate, int]] = []

    def measure(candidate: Candidate, pages: int) -> tuple[float, float, dict[str, Any]]:
        seen.append((candidate, pages))
        rate = min(one * candidate.engines, most) * (0.8 if candidate.wave < candidate.places // 8 else 1)
        return rate, rate / most, {"tok/s": round(1400 * rate)}

    measure.seen = seen  # type: ignore[attr-defined]
    return measure


def test_engines_are_added_until_the_card_is_busy() -> None:
    fits = fitting(load(), 80 * GIB, 0)
    measure = card(7, 19.5)
    trials = list(search(fits, measure))
    best = max(trials, key=lambda trial: trial.pages_per_s)
    assert best.candidate == Candidate(3, 512, 96)
    assert [trial.candidate.engines for trial in trials] == [1, 1, 2, 3]  # the fourth was not needed
    assert trials[2].predicted == pytest.approx(14)
    assert trials[3].predicted == pytest.approx(19.5)
    assert [pages for _, pages in measure.seen] == [30, 140, 350, 488]  # rounds of 25 s at the rate that is expected


def test_a_card_that_one_engine_fills_gets_one() -> None:
    trials = list(search(fitting(load(), 80 * GIB, 0), card(20, 20)))
    assert {trial.candidate.engines for trial in trials} == {1}


def test_memory_decides_what_is_tried() -> None:
    assert fitting(load(), 4 * GIB, 0) == {}
    small = fitting(load(["hardware/rtx5060-8g"]), int(7.96 * GIB), int(1.19 * GIB))
    assert set(small) == {1}
    large = fitting(load(), 140 * GIB, 0)
    assert set(large) == set(range(1, MOST_ENGINES + 1))
    assert all(places == 512 for places, _ in large.values())


def test_the_settings_load(tmp_path: Path) -> None:
    trial = list(search(fitting(load(), 80 * GIB, 0), card(7, 19.5)))[-1]
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(settings_of(trial, load())))
    config = load([file])
    assert (config.vllm.engines_per_gpu, config.vllm.max_num_seqs, config.vllm.wave) == (3, 512, 96)


def test_without_a_card_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> None:
        raise OSError("NVML shared library not found")

    monkeypatch.setattr(gpu_memory, "measure", none)
    with pytest.raises(ConfigError, match="no NVIDIA card"):
        tune(tmp_path / "card.yaml")
