"""The bench that says what a precision does to answers: how it compares, and that it reads with a real engine."""

from __future__ import annotations

import math

import pytest

from jobs.benches.precision import compared, precision, questions
from pipelines.config import load
from pipelines.recognize.base import Answer
from tests.vllm.settings import FIXTURE, settings


def test_log_probabilities_are_compared_where_the_answers_are_equal() -> None:
    def said(text: str, tokens: int, mean: float) -> Answer:
        return Answer(text, tokens=tokens, confidence=math.exp(mean))

    first = [said("one", 2, -0.1), said("two", 4, -0.2), said("three", 5, -0.3)]
    other = [said("one", 2, -0.15), said("too", 4, -9.0), said("three", 6, -9.0)]
    found = compared(first, other, ["one", "two", "three"])
    assert (found["as the first"], found["exact"]) == (1, "66.7%")
    assert found["apart, mean"] == found["apart, most"] == pytest.approx(0.05)
    assert found["log-probability a token"] == pytest.approx((2 * -0.15 + 10 * -9.0) / 12, abs=1e-4)
    assert compared(first, first, ["one", "two", "three"])["apart, most"] == 0
    with pytest.raises(RuntimeError, match="1 crops had no answer: CROP_TIMEOUT"):
        compared(first, [*first[:2], Answer("", "error", error_code="CROP_TIMEOUT")], ["one", "two", "three"])


def test_the_same_questions_every_time() -> None:
    asked, again = questions(load(), 30), questions(load(), 30)
    assert [one.truth for one in asked] == [one.truth for one in again]
    assert all((one.crop.pixels == other.crop.pixels).all() for one, other in zip(asked, again, strict=True))
    assert len({one.truth for one in asked}) > 30  # the specimen pages' regions, and lines that differ


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_types_of_the_tests_model_read_alike() -> None:
    pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-long runs this file there")
    common = [line for line in settings() if not line.startswith(("vllm.dtype", "vllm.model_dir", "recognize.engine"))]
    plain, half = precision(FIXTURE, ["vllm.dtype=float32", "vllm.dtype=bfloat16"], common, 20).rows
    assert plain["as the first"] == plain["answers"] > 20
    assert plain["apart, most"] == 0 < half["apart, most"] < 0.1
    assert half["as the first"] >= 0.9 * half["answers"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_same_answers_by_our_scheduler_and_by_vllms_own() -> None:
    """A real engine, many answers at once, none of them streamed. On a card: docs/performance.md."""
    pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-long runs this file there")
    common = [line for line in settings(vllm__max_num_seqs=24) if not line.startswith(("vllm.model_dir", "recognize.engine"))]
    setups = ["'vllm.engine_args={scheduler_cls: null}'", "vllm.engine_args={}"]
    theirs, ours = precision(FIXTURE, setups, common, 60, confidence=False).rows
    assert theirs["answers"] > 60
    assert (ours["as the first"], ours["tokens"], ours["exact"]) == (theirs["answers"], theirs["tokens"], theirs["exact"])
    assert "apart, most" not in ours
