"""Which cards a bench watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import pytest

from jobs.benches.gpu_watch import GpuWatch
from tests.nvml import Nvml


@pytest.mark.parametrize(
    ("visible", "cards", "asked"),
    [("3,1", [""], [3]), (None, [""], [0]), ("GPU-7", [""], ["GPU-7"]), ("3", ["1", "0"], [1, 0])],
)
def test_the_cards_that_are_named_else_the_one_that_is_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, cards: Sequence[str], asked: list[object]
) -> None:
    """NVML counts all cards of the machine: index 0 would be another's card."""
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    begin = time.time()
    with GpuWatch(cards, every_s=0.01) as watch:
        while not watch.between(begin, time.time()):
            time.sleep(0.01)
    assert nvml.asked == asked
    row = watch.between(begin, time.time())
    assert row["W"] == 300 * len(cards)
    assert (row["MHz"], row["power-capped %"]) == (1755, 100)
    assert row["GPU busy %"] == (50 if len(cards) == 1 else [50] * len(cards))
