"""What cards did while something ran: busy share, power, memory, clock, as NVML reports them five times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from statistics import mean
from types import TracebackType
from typing import Any

from pipelines.observe.cards import CardUsage
from pipelines.recognize.gpu_memory import CardUse, handle_of, use_of, visible_card


class GpuWatch:
    """Samples cards in a thread; where there is no NVML it says nothing.

    Args:
        cards: indices as NVML counts, or UUIDs; "" is the first that this process may use.
    """

    def __init__(self, cards: Sequence[str] = ("",), every_s: float = 0.2) -> None:
        self._cards = tuple(card or visible_card() for card in cards)
        self._every_s = every_s
        self._samples: list[tuple[float, list[CardUse]]] = []  # of each card
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
        means = [_means(cards[n] for cards in inside) for n in range(len(self._cards))]
        busy = [round(each["busy_percent"] or 0) for each in means]
        told = {
            "GPU busy %": busy[0] if len(busy) == 1 else busy, "W": round(sum(each["watts"] or 0 for each in means)),
            "GiB": round(max(each["used_bytes"] for each in means) / (1 << 30), 1), "card": self.card,
        }  # fmt: skip
        for name, key in (("MHz", "mhz"), ("power-capped %", "power_capped_percent")):
            if values := [each[key] for each in means if each[key] is not None]:
                told[name] = round(mean(values))
        return told

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
            self._samples.append((time.time(), [use_of(pynvml, handle) for handle in handles]))
        pynvml.nvmlShutdown()


def _means(looks: Iterable[CardUse]) -> dict[str, Any]:
    usage = CardUsage()
    for look in looks:
        usage.add(look)
    return usage.as_dict("")
