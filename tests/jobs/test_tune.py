"""The search behind `pagemill tune`, with cards that are functions."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

import jobs.tune as tune_job
from jobs.benches import tuning
from jobs.benches.archives import originals
from jobs.benches.cpu_stages import CpuStages
from jobs.benches.layout import noise
from jobs.benches.shape import write_shape
from jobs.benches.teams import Teams
from jobs.benches.tuning import (
    MOST_ENGINES,
    MOST_STARTS,
    Candidate,
    Search,
    Trial,
    chosen,
    enough_workers,
    fitting,
    layout_batch,
    settings_of,
    steps_to_try,
)
from jobs.benches.workloads import Job, known
from jobs.tune import tune
from pipelines.config import Config, load
from pipelines.errors import ConfigError
from pipelines.recognize import gpu_memory
from pipelines.recognize.gpu_budget import GIB
from tests.layout import tiny_doclayout


class Pretended:
    """A card on which an engine gives `one` pages/s and all together at most `most`; small waves and small steps cost a fifth."""

    def __init__(self, one: float, most: float, least_step: int = 0, apart: bool = False) -> None:
        self.one, self.most, self.least_step, self.apart = one, most, least_step, apart
        self.seen: list[tuple[Candidate, int]] = []

    def starts(self, candidate: Candidate) -> int:
        """Engines of one step are there together, or each number of them has to be started."""
        if self.apart:
            return candidate.engines if not self.seen or self.seen[-1][0].engines != candidate.engines else 0
        if not self.seen:
            return MOST_ENGINES
        return int(candidate.batched != self.seen[-1][0].batched)

    def measure(self, candidate: Candidate, pages: int) -> tuple[float, float, dict[str, Any]]:
        self.seen.append((candidate, pages))
        rate = min(self.one * candidate.engines, self.most) * (0.8 if candidate.wave < candidate.places // 8 else 1)
        rate *= 0.8 if candidate.batched < self.least_step else 1
        return rate, rate / self.most, {"tok/s": round(1400 * rate)}


STEPS = (16_384, 8192, 32_768)
H100 = 80 * GIB


def found_on(card: Pretended, config: Config | None = None, total: int = H100) -> list[Trial]:
    return list(Search(fitting(config or load(), total, 0), STEPS, card).trials())


def test_engines_are_added_until_the_card_is_busy() -> None:
    card = Pretended(7, 19.5)
    trials = found_on(card)
    assert chosen(trials).candidate == Candidate(3, 1024, 192)
    assert [trial.candidate.engines for trial in trials] == [1, 1, 2, 3]  # the fourth was not needed
    assert {trial.candidate.batched for trial in trials} == {16_384}  # several engines gain nothing by other steps
    assert trials[2].predicted == pytest.approx(14)
    assert trials[3].predicted == pytest.approx(19.5)
    assert [pages for _, pages in card.seen] == [30, 140, 350, 488]  # rounds of 25 s at the rate that is expected


def test_a_card_that_one_engine_fills_gets_one() -> None:
    assert {trial.candidate.engines for trial in found_on(Pretended(20, 20))} == {1}


def test_other_steps_are_tried_where_one_engine_is_the_fastest_and_chosen_where_they_gain_more_than_noise() -> None:
    trials = found_on(Pretended(20, 20, least_step=20_000))
    # small steps leave the card idle, and more engines do not help
    assert [trial.candidate.engines for trial in trials] == [1, 1, 2, 3, 4, 1, 1]
    assert [trial.candidate.batched for trial in trials[5:]] == [8192, 32_768]
    assert chosen(trials).candidate == Candidate(1, 1024, 192, 32_768)
    slightly = [replace(trial, pages_per_s=16 if trial.candidate.batched == 16_384 else 16.3) for trial in trials]
    assert chosen(slightly).candidate.batched == 16_384


def test_no_more_engines_start_than_were_promised() -> None:
    card = Pretended(2, 1000, apart=True)
    trials = found_on(card)
    assert [trial.candidate.engines for trial in trials] == [1, 1, 2, 3]  # 1 + 2 + 3: none is left for four, nor for other steps
    starts = sum(after.engines for before, after in pairwise([Candidate(0, 1, 1), *(seen for seen, _ in card.seen)])
                 if after.engines != before.engines)  # fmt: skip
    assert starts <= MOST_STARTS


def test_memory_decides_what_is_tried() -> None:
    assert fitting(load(), 4 * GIB, 0) == {}
    small = fitting(load(["hardware/rtx5060-8g"]), int(7.96 * GIB), int(1.19 * GIB))
    assert set(small) == {1}
    large = fitting(load(), 140 * GIB, 0)
    assert set(large) == set(range(1, MOST_ENGINES + 1))
    assert all(places == 1024 for places, _ in large.values())


def test_a_step_that_would_take_the_places_memory_is_not_tried() -> None:
    assert steps_to_try(load(), 512, H100, 0) == [16_384, 8192, 32_768]
    small = load(["hardware/rtx5060-8g"])
    total, held = int(7.96 * GIB), int(1.19 * GIB)
    ((places, _),) = fitting(small, total, held).values()
    assert steps_to_try(small, places, total, held) == [16_384, 8192]
    assert steps_to_try(load(settings=["vllm.max_num_batched_tokens=4096"]), 512, H100, 0) == [4096, 8192]


def test_engines_that_get_the_same_memory_are_on_the_card_together(tmp_path: Path) -> None:
    large = Teams(load(), fitting(load(), 140 * GIB, 0), 140 * GIB, 0, tmp_path, 2)
    assert large.starts(Candidate(1, 1024, 192)) == MOST_ENGINES
    assert large.starts(Candidate(1, 1024, 192, 32_768)) == 1
    # two fill a smaller card: one of them alone would be measured with half of what it has in a run
    total = 22 * GIB
    fits = fitting(load(), total, 0)
    assert set(fits) >= {1, 2}
    small = Teams(load(), fits, total, 0, tmp_path, 2)
    assert [small.starts(Candidate(engines, fits[engines][0], 32)) for engines in (1, 2)] == [1, 2]


def test_the_smallest_micro_batch_that_is_as_fast_as_any() -> None:
    assert layout_batch({1: 9.1, 2: 6.6, 4: 6.5}) == 2
    assert layout_batch({1: 9.1, 2: 8.0, 4: 6.5}) == 4


def test_cpu_workers_are_added_until_they_keep_up() -> None:
    tried = list(enough_workers(20, (0.1, 0.05), 16, lambda count: 6 * count))  # six a second each, where ten were predicted
    assert [(found.count, found.pages_per_s) for found in tried] == [(3, 18), (4, 24)]
    assert tried[0].predicted == pytest.approx(30)


def test_cpu_workers_end_at_the_machines_cores() -> None:
    (only,) = enough_workers(100, (0.1, 0.1), 4, lambda count: 5.0 * count)
    assert (only.count, only.predicted) == (4, pytest.approx(20))  # both kinds share the cores


def test_the_settings_load(tmp_path: Path) -> None:
    config = load(["hardware/h100"])
    best = chosen(found_on(Pretended(7, 19.5), config)).candidate
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(settings_of(best, config, H100, 2 * GIB, workers=5, batch_pages=2)))
    written = load(["hardware/h100", file])
    assert (written.vllm.engines_per_gpu, written.vllm.max_num_seqs, written.vllm.wave) == (3, 1024, 192)
    assert (written.ray.workers, written.layout.batch_pages, written.vllm.max_num_batched_tokens) == (5, 2, 16_384)
    # what others hold, what layout takes, and the gibibyte that stays free: 5 of 80
    assert written.vllm.gpu_memory_utilization == pytest.approx(75 / 80, abs=0.001)


def test_cpu_stages_work_side_by_side() -> None:
    stages = CpuStages(load().raster, originals(None))
    assert min(stages.seconds()) > 0
    assert stages.pages_per_s(2, round_s=0.3) > 0


def test_without_a_card_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> None:
        raise OSError("NVML shared library not found")

    monkeypatch.setattr(gpu_memory, "measure", none)
    with pytest.raises(ConfigError, match="no NVIDIA card"):
        tune(tmp_path / "card.yaml")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_of_it_on_a_card_that_is_this_machines_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real engines of a tiny shape start, read and end; only the card's memory, and how much there is to read, are pretended."""
    pytest.importorskip("vllm", reason="vLLM is not in this environment: `make .venv-vllm`; make test-long runs this test there")
    total = 14 * GIB

    def few_short(pages: int, seed: int) -> list[list[Job]]:
        return [[replace(job, tokens=4) for job in page[:2]] for page in known(min(pages, 4), seed)]

    monkeypatch.setattr(gpu_memory, "measure", lambda _: gpu_memory.Card("a pretended card", total, total))
    monkeypatch.setattr(tuning, "_PLACES", (16,))
    monkeypatch.setattr(tune_job, "write_shape", lambda folder: write_shape(folder, tiny=True))
    monkeypatch.setattr(tune_job, "known", few_short)
    monkeypatch.setattr(tune_job, "layout_on_card", lambda _: True)
    monkeypatch.setattr(tune_job, "noise", lambda _: noise(2))
    monkeypatch.setattr(tune_job, "write_layout", lambda folder, kind: tiny_doclayout.build(kind, folder))
    monkeypatch.setattr(tune_job, "let_pass", lambda *_: None)  # moves the classifier of a model with the true classes
    file = tmp_path / "card.yaml"
    tune(file, None, 2, None, ["vllm.enforce_eager=true", "layout.engine=transformers"])
    written = load([file])
    assert written.vllm.max_num_seqs == 16
    assert written.vllm.engines_per_gpu in (1, 2)
    assert written.vllm.max_num_batched_tokens in (8192, 16_384, 32_768)
    assert written.layout.batch_pages in (1, 2, 4)
    assert 1 <= (written.ray.workers or 0) <= (os.cpu_count() or 1)
