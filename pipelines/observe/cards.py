"""What the cards of a run did while it ran: sums over samples, from every node, merged by the driver.

Invariant: pure; a mean is over samples that were taken, and several actors on one card, which all sample it, do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.recognize.gpu_memory import CardUse


@dataclass(slots=True)
class CardUsage:
    """Samples of one card."""

    samples: int = 0
    busy: float | None = None  # sum of percent; None: the card does not say
    watts: float | None = None  # sum; None: the card does not say
    used: int = 0  # bytes, the most
    mhz: float | None = None  # sum; None: the card does not say
    capped: float | None = None  # samples in which its power limit kept the clock down; None: the card does not say

    def add(self, card: CardUse) -> None:
        self.merge(CardUsage(1, card.busy, card.watts, card.used, card.mhz, card.capped))

    def merge(self, other: CardUsage) -> None:
        self.samples += other.samples
        self.busy, self.watts = _sum(self.busy, other.busy), _sum(self.watts, other.watts)
        self.mhz, self.capped = _sum(self.mhz, other.mhz), _sum(self.capped, other.capped)
        self.used = max(self.used, other.used)

    def as_dict(self, name: str) -> dict[str, Any]:
        return {
            "card": name, "samples": self.samples, "busy_percent": self._mean(self.busy), "watts": self._mean(self.watts),
            "used_bytes": self.used, "mhz": self._mean(self.mhz),
            "power_capped_percent": self._mean(None if self.capped is None else 100 * self.capped),
        }  # fmt: skip

    def _mean(self, total: float | None) -> float | None:
        return None if total is None else round(total / max(1, self.samples), 1)


def _sum(mine: float | None, theirs: float | None) -> float | None:
    return mine if theirs is None else (mine or 0.0) + theirs


def merge_cards(mine: dict[str, CardUsage], theirs: Mapping[str, CardUsage]) -> None:
    """Adds usage by the cards' names."""
    for name, usage in theirs.items():
        mine.setdefault(name, CardUsage()).merge(usage)
