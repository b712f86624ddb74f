"""Admission in waves, and loops found while they happen."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.recognize.admission import Admission
from pipelines.recognize.loops import LoopRule, LoopWatch


async def _load(admission: Admission, crops: int, seed: int) -> tuple[list[int], list[int]]:
    """Crops of random length; returns the order of admission, and how many came in at each offer."""
    order: list[int] = []
    chance = random.Random(seed)

    async def one(number: int) -> None:
        async with admission.place():
            order.append(number)
            for _ in range(chance.randrange(1, 20)):
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(one(number)) for number in range(crops)]
    offers, before = [], 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        if len(order) > before:
            offers.append(len(order) - before)
            before = len(order)
    return order, offers


def test_waves() -> None:
    async def scenario() -> None:
        admission = Admission(places=40, wave=10)
        order, offers = await _load(admission, 300, seed=1)
        assert order == list(range(300))
        assert admission.most == 40
        assert admission.under_way == 0
        # the first fills all places, and none but the last, when fewer wait, is smaller than a wave
        assert offers[0] == 40
        assert min(offers[:-1]) >= 10

    asyncio.run(scenario())


@settings(max_examples=50, deadline=None)
@given(places=st.integers(1, 30), wave=st.integers(1, 40), crops=st.integers(0, 100), seed=st.integers(0, 99))
def test_everyone_is_admitted(places: int, wave: int, crops: int, seed: int) -> None:
    admission = Admission(places, wave)
    order, _ = asyncio.run(_load(admission, crops, seed))
    assert order == list(range(crops))
    assert admission.most <= places
    assert admission.under_way == 0


def test_cancelled_waiters_leave_no_hole() -> None:
    async def scenario() -> None:
        admission = Admission(places=2, wave=1)
        gate = asyncio.Event()

        async def hold() -> None:
            async with admission.place():
                await gate.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(6)]
        await asyncio.sleep(0.01)
        assert admission.under_way == 2
        tasks[3].cancel()  # waits
        tasks[0].cancel()  # holds a place
        await asyncio.sleep(0.01)
        assert admission.under_way == 2
        gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in done] == [True, False, False, True, False, False]
        assert admission.under_way == 0
        # cancelled in the turn in which it was admitted
        gate.clear()
        late = asyncio.create_task(hold())
        for _ in range(5):
            await asyncio.sleep(0)
            if admission.under_way:
                break
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert admission.under_way == 0

    asyncio.run(scenario())


def _loops(items: list[int], longest: int, repeats: int) -> bool:
    """The rule as it is said: some pattern stands `repeats` times in a row at the end of some beginning."""
    for end in range(1, len(items) + 1):
        for length in range(1, longest + 1):
            if length * repeats <= end and all(
                items[end - 1 - n] == items[end - 1 - n - length] for n in range(length * (repeats - 1))
            ):
                return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 5), st.integers(2, 5))
def test_the_watch_follows_the_rule(items: list[int], longest: int, repeats: int) -> None:
    watch = LoopWatch(LoopRule(longest, repeats))
    assert any(watch.feed([item]) for item in items) == _loops(items, longest, repeats)


def test_what_is_no_loop() -> None:
    rule = LoopRule(24, 32)
    assert not LoopWatch(rule).feed("." * 31)  # leaders of a table of contents
    assert LoopWatch(rule).feed("." * 32)
    assert not LoopWatch(rule).feed("".join(f"line {n} of many\n" for n in range(400)))
    assert LoopWatch(rule).feed("so " * 32)
