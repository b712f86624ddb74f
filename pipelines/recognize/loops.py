"""Repetition loops in an answer, found while it is written.

Invariant: pure. An answer loops when it ends in one pattern of at most `longest` items, `repeats` times in a row. The rule
is the one of vLLM's `repetition_detection`, so that it does not matter which of the two cuts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from pipelines.config import RecognizeConfig
from pipelines.recognize.base import Task

_TABLES = 4  # rows of empty cells are no loop: measured by what the official pipeline allows them (5,000 characters, else 50)


@dataclass(slots=True, frozen=True)
class LoopRule:
    longest: int  # pattern, in tokens (or characters, where there are no tokens)
    repeats: int

    @staticmethod
    def of(config: RecognizeConfig, task: Task) -> LoopRule | None:
        """None: nothing is cut."""
        if not config.loop_pattern:
            return None
        return LoopRule(config.loop_pattern, config.loop_repeats * (_TABLES if task in ("table", "chart") else 1))


class LoopWatch:
    """Watches one answer, for engines that cannot do it themselves. Costs `longest` comparisons an item."""

    def __init__(self, rule: LoopRule) -> None:
        self._rule = rule
        self._tail: list[Hashable] = []
        self._runs = [0] * (rule.longest + 1)  # by pattern length: items in a row that equal the one a pattern earlier

    def feed(self, items: Iterable[Hashable]) -> bool:
        """Takes what came; True as soon as the answer loops."""
        tail, runs, repeats = self._tail, self._runs, self._rule.repeats
        for item in items:
            tail.append(item)
            for length in range(1, min(self._rule.longest, len(tail) - 1) + 1):
                runs[length] = runs[length] + 1 if tail[-1 - length] == item else 0
                if runs[length] >= length * (repeats - 1):
                    return True
            if len(tail) > 4 * self._rule.longest:
                del tail[: -self._rule.longest]
        return False
