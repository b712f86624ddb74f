"""What the cards of a run did while it ran: sums over samples, from every node, merged by the driver.

Invariant: pure; a mean is over samples that were taken, and several actors on one card, which all sample it, do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class CardUsage:
    """Samples of one card."""

    samples: int = 0
    busy: float | None = None  # sum of percent; None: the card does not say
    watts: float | None = None  # sum; None: the card does not say
    used: int = 0  # bytes, the most

    def add(self, busy: float | None, watts: float | None, used: int) -> None:
        self.merge(CardUsage(1, busy, watts, used))

    def merge(self, other: CardUsage) -> None:
        self.samples += other.samples
        if other.busy is not None:
            self.busy = (self.busy or 0.0) + other.busy
        if other.watts is not None:
            self.watts = (self.watts or 0.0) + other.watts
        self.used = max(self.used, other.used)

    def as_dict(self, name: str) -> dict[str, Any]:
        count = max(1, self.samples)
        return {
            "card": name, "samples": self.samples,
            "busy_percent": None if self.busy is None else round(self.busy / count, 1),
            "watts": None if self.watts is None else round(self.watts / count, 1), "used_bytes": self.used,
        }  # fmt: skip


def merge_cards(mine: dict[str, CardUsage], theirs: Mapping[str, CardUsage]) -> None:
    """Adds usage by the cards' names."""
    for name, usage in theirs.items():
        mine.setdefault(name, CardUsage()).merge(usage)
