"""What cards did while something ran: busy share, power, memory, as NVML reports them five times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from statistics import mean
from types import TracebackType
from typing import Any

from pipelines.recognize.gpu_memory import handle_of, visible_card


class GpuWatch:
    """Samples cards in a thread; where there is no NVML it says nothing.

    Args:
        cards: indices as NVML counts, or UUIDs; "" is the first that this process may use.
    """

    def __init__(self, cards: Sequence[str] = ("",), every_s: float = 0.2) -> None:
        self._cards = tuple(card or visible_card() for card in cards)
        self._every_s = every_s
        self._samples: list[tuple[float, list[tuple[float, float, float]]]] = []  # per card: busy %, W, GiB
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.card = ""

    def __enter__(self) -> GpuWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> dict[str, Any]:
        """Means over samples taken between two instants (time.time()); of several cards the sum of their power."""
        inside = [cards for at, cards in self._samples if begin < at < end]
        if not inside:
            return {}
        busy = [round(mean(cards[n][0] for cards in inside)) for n in range(len(self._cards))]
        return {
            "GPU busy %": busy[0] if len(busy) == 1 else busy, "W": round(mean(sum(c[1] for c in cards) for cards in inside)),
            "GiB": round(max(c[2] for cards in inside for c in cards), 1), "card": self.card,
        }  # fmt: skip

    def _watch(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no library, no driver, no card: nothing to watch
            return
        handles = [handle_of(pynvml, card) for card in self._cards]
        name = pynvml.nvmlDeviceGetName(handles[0])
        self.card = name if isinstance(name, str) else name.decode()
        while not self._stop.wait(self._every_s):
            self._samples.append((time.time(), [_sample(pynvml, handle) for handle in handles]))
        pynvml.nvmlShutdown()


def _sample(pynvml: Any, handle: Any) -> tuple[float, float, float]:
    busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
    return busy, pynvml.nvmlDeviceGetPowerUsage(handle) / 1000, pynvml.nvmlDeviceGetMemoryInfo(handle).used / (1 << 30)
