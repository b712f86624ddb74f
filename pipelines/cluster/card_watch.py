"""An actor looks at its card once a second, and sends what it saw with its blocks: cards of all nodes come into the report.

Invariant: it decides nothing; while NVML does not answer there is nothing to tell, and the actor works the same.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import ray

from pipelines.observe.cards import CardUsage
from pipelines.recognize.gpu_memory import CardUse, card_in_use, visible_card

_EVERY_S = 1.0


class CardWatch:
    """A thread of its own, which ends with the process."""

    def __init__(self, look: Callable[[], CardUse | None], every_s: float = _EVERY_S) -> None:
        self._look, self._every_s = look, every_s
        self._lock = threading.Lock()
        self._seen: dict[str, CardUsage] = {}
        threading.Thread(target=self._run, name="card", daemon=True).start()

    @classmethod
    def here(cls) -> CardWatch | None:
        """Of the card that Ray gave this actor; None: it has none, or is none (asked elsewhere, Ray would start a cluster)."""
        on_card = ray.is_initialized() and ray.get_gpu_ids()
        return cls(lambda: card_in_use(visible_card())) if on_card else None

    def taken(self) -> dict[str, CardUsage]:
        """What was seen since the last call."""
        with self._lock:
            seen, self._seen = self._seen, {}
        return seen

    def _run(self) -> None:
        while True:
            if (card := self._look()) is not None:
                with self._lock:
                    name = f"{socket.gethostname()} {card.name}"
                    self._seen.setdefault(name, CardUsage()).add(card)
            time.sleep(self._every_s)
