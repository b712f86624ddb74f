"""What the blocks of a run say of themselves, counted: labels, sources, confidence, agreement, flags.

Invariant: pure counting of what was read; a page that two workers read (a lost node) is counted twice and nothing else is.
Bounded whatever the run: a few counters and two histograms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.schema import PageWork, SpanWork

BINS = 20  # of a histogram over 0..1; the last one includes 1


@dataclass(slots=True)
class Quality:
    """Counters over blocks (labels, sources, characters, histograms) and pages (flags)."""

    labels: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)  # blocks by source
    characters: Counter[str] = field(default_factory=Counter)  # characters by source
    flags: Counter[str] = field(default_factory=Counter)  # pages by flag
    block_errors: Counter[str] = field(default_factory=Counter)  # blocks by error code
    crops: int = 0  # blocks that a vision-language model answered for
    patches: int = 0  # of their pictures, 14 x 14 pixels each, where a model in process read them
    tokens: int = 0  # its output tokens, all tries together
    tokens_saved: int = 0
    confidence: list[int] = field(default_factory=lambda: [0] * BINS)
    agreement: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, page: PageWork) -> None:
        self.flags.update(set(page.flags))
        self.patches += page.patches
        for block in page.blocks:
            self.labels[block.label] += 1
            self.sources[block.source] += 1
            self.characters[block.source] += len(block.content)
            if block.tokens is not None:
                self.crops += 1
                self.tokens += block.tokens
                self.tokens_saved += block.tokens_saved or 0
            if block.error_code:
                self.block_errors[block.error_code] += 1
            if block.confidence is not None:
                self.confidence[_bin(block.confidence)] += 1
            if block.agreement is not None:
                self.agreement[_bin(block.agreement)] += 1

    def merge(self, other: Quality) -> None:
        for name in ("labels", "sources", "characters", "flags", "block_errors"):
            getattr(self, name).update(getattr(other, name))
        for name in ("crops", "patches", "tokens", "tokens_saved"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("confidence", "agreement"):
            mine, theirs = getattr(self, name), getattr(other, name)
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: `{"labels": {...}, ..., "tokens": 0, "confidence": [20 counts], "agreement": [20 counts]}`."""
        return {
            name: dict(value) if isinstance(value, Counter) else list(value) if isinstance(value, list) else value
            for name in self.__slots__
            for value in [getattr(self, name)]
        }


def quality_of(works: Sequence[SpanWork]) -> Quality:
    found = Quality()
    for work in works:
        for page in work.pages:
            found.add(page)
    return found


def certainty(page: PageWork) -> float | None:
    """How sure the reader was of a page, 0..1: its mean confidence or agreement, the lower one, weighted by characters.

    None where no block says.
    """
    confidence = mean((block.confidence, block.content) for block in page.blocks)
    agreement = mean((block.agreement, block.content) for block in page.blocks)
    return min((value for value in (confidence, agreement) if value is not None), default=None)


def mean(said: Iterable[tuple[float | None, str]]) -> float | None:
    """Of what was said of some texts, each weighted by its characters; None where nothing was said."""
    told = [(value, max(1, len(text))) for value, text in said if value is not None]
    weight = sum(characters for _, characters in told)
    return sum(value * characters for value, characters in told) / weight if told else None


def _bin(value: float) -> int:
    return min(BINS - 1, max(0, int(value * BINS)))
