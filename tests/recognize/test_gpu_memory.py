"""How much of a card an engine takes, and what it says when that is not there."""

from __future__ import annotations

import multiprocessing
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import EngineUnavailable
from pipelines.recognize.gpu_memory import (
    Card,
    CardUse,
    LayoutOnCard,
    Starts,
    card_in_use,
    cards_in_use,
    settled_share,
    share,
)
from tests.nvml import Nvml

GIB = 1 << 30
WEIGHTS = int(1.8 * GIB)  # the 0.9B model in bf16


def card(free: float, total: float) -> Card:
    return Card("NVIDIA GeForce RTX 5060", int(free * GIB), int(total * GIB))


def test_the_known_case_names_the_value_to_set() -> None:
    with pytest.raises(EngineUnavailable) as refused:
        share(card(6.77, 7.96), 0.99, 1, 0, GIB, WEIGHTS)
    message = str(refused.value)
    assert "6.77 of 7.96 GiB are free" in message
    assert "0.99" in message
    value = float(re.findall(r"--set vllm\.gpu_memory_utilization=([\d.]+)", message)[0])
    assert value == 0.724  # 6.77 less the reserve of 1 GiB, of 7.96
    assert share(card(6.77, 7.96), value, 1, 0, GIB, WEIGHTS) == value


def test_auto_takes_what_is_free() -> None:
    assert share(card(6.77, 7.96), "auto", 1, 0, GIB, WEIGHTS) == 0.724
    assert share(card(139.0, 141.0), "auto", 1, 0, GIB, WEIGHTS) == 0.978


def test_three_engines_share_evenly_and_one_that_comes_back_gets_its_own_again() -> None:
    total, free, given_away = 141.0, 140.0, []
    for others in range(3):
        given_away.append(share(card(free, total), "auto", 3, others, GIB, WEIGHTS))
        free -= given_away[-1] * total
    assert max(given_away) - min(given_away) < 0.002
    assert free >= 1.0
    free += given_away[1] * total  # the second dies
    assert share(card(free, total), "auto", 3, 2, GIB, WEIGHTS) == pytest.approx(given_away[1], abs=0.002)


def test_a_card_that_is_too_small_says_so() -> None:
    with pytest.raises(EngineUnavailable, match=r"needs at least 2\.05 GiB"):
        share(card(2.5, 7.96), "auto", 1, 0, GIB, WEIGHTS)
    with pytest.raises(EngineUnavailable, match=r"engines_per_gpu=1"):
        share(card(6.77, 7.96), "auto", 3, 0, GIB, WEIGHTS)


@given(
    free=st.floats(0, 1), total=st.floats(4, 200), asked=st.one_of(st.just("auto"), st.floats(0.01, 1)),
    engines=st.integers(1, 4), others=st.integers(0, 3), reserve=st.floats(0, 4),
)  # fmt: skip
def test_never_more_than_is_free(free: float, total: float, asked: float, engines: int, others: int, reserve: float) -> None:
    memory = card(free * total, total)
    try:
        fraction = share(memory, asked, engines, others, int(reserve * GIB), WEIGHTS)
    except EngineUnavailable as error:
        for value in re.findall(r"--set vllm\.gpu_memory_utilization=([\d.]+)", str(error)):
            assert share(memory, float(value), engines, others, int(reserve * GIB), WEIGHTS) > 0  # what it says to set works
        return
    assert 0 < fraction * memory.total <= memory.free
    assert fraction * memory.total >= WEIGHTS


def test_an_engine_that_comes_back_waits_for_its_predecessors_memory() -> None:
    seen = iter([2.0, 2.0, 2.0, 5.0, 7.0, 7.0])  # the dead one's memory comes back in two steps

    def look() -> Card:
        return card(next(seen), 7.96)

    def decide(found: Card) -> float:
        return share(found, "auto", 1, 0, GIB, WEIGHTS)

    assert settled_share(look, decide, wait_s=5, pause_s=0) == decide(card(7.0, 7.96))
    with pytest.raises(EngineUnavailable):
        settled_share(lambda: card(2.0, 7.96), decide, wait_s=0.05, pause_s=0.01)


def _engine(folder: Path, log: Path, live_s: float) -> None:
    with Starts("0", folder).turn() as others:
        with log.open("a") as file:
            file.write(f"+{others}\n")
        time.sleep(0.2)
        with log.open("a") as file:
            file.write("-\n")
    time.sleep(live_s)


def test_starts_are_serial_and_the_dead_are_forgotten(tmp_path: Path) -> None:
    context, log = multiprocessing.get_context("spawn"), tmp_path / "log"
    engines = [context.Process(target=_engine, args=(tmp_path, log, 60)) for _ in range(3)]
    for engine in engines:
        engine.start()
    try:
        until = time.monotonic() + 60
        while (log.read_text().count("-") if log.exists() else 0) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        assert log.read_text().split() == ["+0", "-", "+1", "-", "+2", "-"]
        engines[0].kill()
        engines[0].join()
        again = context.Process(target=_engine, args=(tmp_path, log, 0))
        again.start()
        again.join(60)
        assert log.read_text().split()[6:] == ["+2", "-"]
    finally:
        for engine in engines:
            engine.kill()


def _layout(folder: Path, card: str) -> None:
    LayoutOnCard(card, folder).holds_its_memory()
    time.sleep(60)


def test_layout_on_the_card_keeps_its_memory_whoever_is_first(tmp_path: Path) -> None:
    """It is loaded with the first page, an engine in half a minute: which of them measures first is chance."""
    here = LayoutOnCard("0", tmp_path)
    assert here.left_free(2 * GIB) == 2 * GIB  # it is not there: what is free now is not all the engine's
    before = share(card(7.5, 7.96), "auto", 1, 0, GIB // 2 + here.left_free(GIB), WEIGHTS)
    layout = multiprocessing.get_context("spawn").Process(target=_layout, args=(tmp_path, "0"))
    layout.start()
    try:
        until = time.monotonic() + 60
        while here.left_free(1) and time.monotonic() < until:
            time.sleep(0.05)
        assert here.left_free(GIB) == 0  # it holds it: what is free is less by that
        assert LayoutOnCard("1", tmp_path).left_free(GIB) == GIB
        assert share(card(6.5, 7.96), "auto", 1, 0, GIB // 2 + here.left_free(GIB), WEIGHTS) == before
    finally:
        layout.kill()
        layout.join()
    assert here.left_free(GIB) == GIB  # it died, and comes back


@pytest.mark.parametrize(
    ("silent", "told"),
    [
        ((), (50.0, 1 << 30, 300.0, 1755.0, True)), (("watts",), (50.0, 1 << 30, None, 1755.0, True)),
        (("busy",), (None, 1 << 30, 300.0, 1755.0, True)), (("mhz", "capped"), (50.0, 1 << 30, 300.0, None, None)),
        (("busy", "watts", "mhz", "capped"), (None, 1 << 30, None, None, None)),
    ],
)  # fmt: skip
def test_a_card_may_not_say_everything(monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...], told: Any) -> None:
    """A slice of a card does not say how busy it is, some laptops not what they draw; the rest is told."""
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(2, silent))
    assert cards_in_use() == [CardUse(f"{index} a card", *told) for index in range(2)]
    assert card_in_use("1") == CardUse("1 a card", *told)


def test_a_card_that_is_lost_ends_nobody_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(2)
    nvml.lost = True
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert (cards_in_use(), card_in_use("1")) == ([], None)
    nvml.lost = False
    assert len(cards_in_use()) == 2
