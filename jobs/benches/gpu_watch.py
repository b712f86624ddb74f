"""What a card did while something ran: busy share, power, memory, as NVML reports them five times a second."""

from __future__ import annotations

import threading
import time
from statistics import mean
from types import TracebackType
from typing import Any


class GpuWatch:
    """Samples the first card in a thread; where there is no NVML it says nothing."""

    def __init__(self, every_s: float = 0.2) -> None:
        self._every_s = every_s
        self._samples: list[tuple[float, float, float, float]] = []
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
        """Means over samples taken between two instants (time.time())."""
        inside = [sample for sample in self._samples if begin < sample[0] < end]
        if not inside:
            return {}
        return {
            "GPU busy %": round(mean(s[1] for s in inside)), "W": round(mean(s[2] for s in inside)),
            "GiB": round(max(s[3] for s in inside), 1), "card": self.card,
        }  # fmt: skip

    def _watch(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no library, no driver, no card: nothing to watch
            return
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(handle)
        self.card = name if isinstance(name, str) else name.decode()
        while not self._stop.wait(self._every_s):
            busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            power = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
            used = pynvml.nvmlDeviceGetMemoryInfo(handle).used / (1 << 30)
            self._samples.append((time.time(), busy, power, used))
        pynvml.nvmlShutdown()
