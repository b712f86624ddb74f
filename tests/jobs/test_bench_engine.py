"""What the engine bench reads, and how it counts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import typer

from jobs.benches.engine import Setup, _row
from jobs.benches.engine_profile import profile_of
from jobs.benches.engine_worker import Finished, Recorded, _Ahead
from jobs.benches.workloads import archive, known
from pipelines.recognize.pack import target_size


def test_the_known_workload_is_what_earlier_figures_were_measured_with() -> None:
    work = known(400)
    jobs = [job for page in work for job in page]
    assert round(len(jobs) / 400, 1) == 13.8
    assert round(sum(job.tokens for job in jobs) / 400) == 1377
    assert work == known(400)
    assert all(job.expected == job.tokens for job in jobs)


def test_an_archive_has_many_grids_long_answers_and_no_oracle(tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([[(980, 60 + 11 * n), (470 + n, 200), (300, 30)] * 4 for n in range(40)]))
    jobs = [job for page in archive(boxes, 1500) for job in page]
    assert len({target_size(job.height, job.width, 112_896, 1_003_520) for job in jobs}) >= 200
    assert 0.007 < sum(job.tokens == 4096 for job in jobs) / len(jobs) < 0.013
    usual = [job.tokens / job.expected for job in jobs if job.tokens < 4096 and job.expected > 20]
    assert 1.1 < sum(usual) / len(usual) < 1.3  # mean of a lognormal of sigma 0.6 around the estimate: 1.2
    assert sum(job.tokens == job.expected for job in jobs) / len(jobs) < 0.1


def test_setups_are_read_or_refused() -> None:
    assert Setup.parse("packed:3x512:wave=96") == Setup("packed:3x512:wave=96", "packed", 3, 512, 96)
    assert Setup.parse("shipped:1x256").wave == 1
    for bad in ("packed", "packed:0", "fast:1x2", "packed:1x2:waves=3"):
        with pytest.raises(typer.BadParameter):
            Setup.parse(bad)


def test_a_row_counts_what_came_and_nothing_else() -> None:
    work = known(40)
    ends = [100 + n / 2 for n in range(40)]
    result = Finished(list(ends), sum(job.tokens for page in work for job in page), 2.0, 110.0, 119.5)
    row = _row(Setup.parse("packed:1x8"), work, ends, 100.0, 120.0, 110.0, [result])
    assert row["pages/s"] == 2.0  # 40 pages in 20 s
    assert row["steady pages/s"] == 2.0  # 16 pages between the tenth's end and the end of the feed
    assert row["tail s"] == 10.0
    assert row["packing CPU-s"] == 2.0
    for wrong in (Finished(ends, result.tokens - 1, 0, 110, 119.5), Finished(ends[1:], result.tokens, 0, 110, 119.5)):
        with pytest.raises(RuntimeError, match="were asked for"):
            _row(Setup.parse("packed:1x8"), work, wrong.page_ends, 100.0, 120.0, 110.0, [wrong])


def test_kernels_are_recorded_where_they_are_asked_for() -> None:
    recorded = Recorded(3.0, (0.5, 0.95, 1))
    assert [number for number in range(300) if recorded.begins(number, 200)] == [100, 190, 200]  # 200: no page is left
    assert not any(Recorded(0.0, (0.5,)).begins(number, 200) for number in range(201))


def test_a_page_is_ahead_until_its_last_crop_was_offered() -> None:
    class Engine:
        under_way = 0

    engine = Engine()
    ahead = _Ahead(engine)  # type: ignore[arg-type]
    ahead.packing = 3
    assert ahead.pages() == 3
    ahead.asked(10)
    ahead.asked(5)
    assert ahead.pages() == 3
    engine.under_way = 9
    assert ahead.pages() == 3
    engine.under_way = 10
    assert ahead.pages() == 2
    ahead.answered, engine.under_way = 9, 1  # its last answer takes long: it is no longer ahead
    assert ahead.pages() == 2
    ahead.answered, engine.under_way = 12, 3
    assert ahead.pages() == 1  # the one that is still being packed


def test_a_profile_counts_each_kernel_once_with_the_step_that_started_it(tmp_path: Path) -> None:
    """Events as PyTorch writes them: microseconds; steps as vLLM labels them."""

    def event(kind: str, name: str, begin: float, took: float) -> dict[str, object]:
        return {"ph": "X", "cat": kind, "name": name, "ts": begin, "dur": took}

    events = [
        event("gpu_user_annotation", "execute_context_0(0)_generation_5(5)", 1000, 400),
        event("kernel", "void attention<64>", 1000, 300),
        event("kernel", "argmax", 1450, 50),  # after the step: sampling
        event("gpu_user_annotation", "execute_context_2(300)_generation_3(3)", 2000, 800),
        event("kernel", "void attention<64>", 2100, 500),
        event("kernel", "void attention<64>", 2600, 100),
        event("gpu_memcpy", "Memcpy HtoD", 900, 20),  # before any step
        event("cpu_op", "aten::mm", 2100, 700),  # the host's
        event("gpu_user_annotation", "somebody else's", 0, 9000),
        {"ph": "M", "name": "process_name"},
    ]
    trace = tmp_path / "worker.pt.trace.json.gz"
    with gzip.open(trace, "wt") as file:
        json.dump({"traceEvents": events}, file)
    found = profile_of(trace)
    assert found.kernels == {
        ("void attention<64>", "decode"): (1, 0.3), ("argmax", "(between)"): (1, 0.05),
        ("void attention<64>", "take crops"): (2, 0.6), ("Memcpy HtoD", "(between)"): (1, 0.02),
    }  # fmt: skip
    assert (found.steps, found.answers, found.tokens) == (
        {"decode": 1, "take crops": 1}, {"decode": 5, "take crops": 5}, {"decode": 5, "take crops": 303},
    )  # fmt: skip
    assert found.span_ms == pytest.approx(1.8)
    assert [(row["kernel"], row["calls"]) for row in found.rows()][:2] == [("attention<64>", 2), ("attention<64>", 1)]
