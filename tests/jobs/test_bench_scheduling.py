"""The bench that times schedulers: both finish all answers, in vLLM's own code but for the model."""

from __future__ import annotations

import pytest

from jobs.benches.scheduling import scheduling
from tests.vllm.settings import FIXTURE

pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-vllm")


def test_both_schedulers_are_timed() -> None:
    figures = scheduling(FIXTURE, answers=24, tokens=12, rounds=1)
    assert [(row["scheduler"], row["loops"][:3]) for row in figures.rows] == [
        ("vLLM's", "not"), ("ours", "not"), ("vLLM's", "24 "), ("ours", "24 "),
    ]  # fmt: skip
    assert all(row["before a step, ms"] > 0 < row["after it, ms"] for row in figures.rows)
