"""What the bench `long-answers` computes: every answer to its end, and empty places where blocks wait for long ones."""

from __future__ import annotations

import pytest

from jobs.benches.long_answers import _EFFICIENCY, _STEP_S, LONGEST, blocks_of, play


def test_every_token_takes_a_step_of_its_answer() -> None:
    played = play([[5, 3], [4]], at_once=1, places=8, wave=1, sharing=1)
    assert played.answers == 5 + 3 + 4
    assert played.steps == 1 + 5 + 1 + 4  # a block is taken in, then its longest answer goes on alone
    assert played.fed < played.seconds
    assert played.seconds > 11 * _STEP_S / _EFFICIENCY
    twice = play([[5, 3], [4]], at_once=1, places=8, wave=1, sharing=2)
    assert twice.seconds == pytest.approx(2 * played.seconds)


def test_places_and_waves_bound_what_is_under_way() -> None:
    played = play([[10] * 30], at_once=1, places=10, wave=10, sharing=1)
    assert (played.steps, played.answers) == (3 * (1 + 10), 300)  # ten at a time, the next ten when all of them are done


def test_blocks_that_wait_for_one_answer_keep_others_out() -> None:
    blocks = blocks_of(400, 8, 0.01)
    assert any(LONGEST in block for block in blocks)
    few, many = (play(blocks, at_once, places=256, wave=48, sharing=1) for at_once in (2, 16))
    assert few.answers == many.answers
    assert few.answers / few.steps < 0.6 * many.answers / many.steps
    assert many.seconds < few.seconds
    even = blocks_of(400, 8, 0)
    few, many = (play(even, at_once, places=256, wave=48, sharing=1) for at_once in (8, 32))
    assert many.seconds == pytest.approx(few.seconds, rel=0.05)  # where answers are alike more blocks only wait
