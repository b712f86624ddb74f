"""Drift: what known pages say now, held against what they said when somebody last agreed with it.

Invariant: pure. A page that was read then and is not read now has drifted; a page that nothing was recorded of has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rapidfuzz.distance import Indel

from pipelines.config import CanaryConfig
from pipelines.observe.compare import page_text

Key = tuple[str, int]  # (doc_id, page_index)


@dataclass(slots=True, frozen=True)
class PageReading:
    """What matters of one reading of a page."""

    doc_id: str
    page_index: int
    name: str  # of the document's file, for people
    state: str
    text: str
    tokens: int  # a model's output, over all tries; 0 for readers that count none
    crops: int  # blocks that were read from pixels

    @property
    def key(self) -> Key:
        return self.doc_id, self.page_index

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_row(cls, row: Mapping[str, Any], name: str) -> PageReading:
        """Of a row of `pages`: doc_id, page_index, state, error_code and blocks."""
        blocks = row["blocks"] or []
        tokens, crops = sum(block["tokens"] or 0 for block in blocks), sum(block["source"] == "pixels" for block in blocks)
        return cls(row["doc_id"], row["page_index"], name, row["state"], page_text(row), tokens, crops)


@dataclass(slots=True)
class Drift:
    """`words` is empty where nothing drifted."""

    pages: int = 0  # that were read before and now
    similarity: float | None = None  # the least of a page's text, 0 to 1
    tokens: tuple[float, float] = (0.0, 0.0)  # a page, then and now
    crops: tuple[float, float] = (0.0, 0.0)
    words: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "pages": self.pages, "similarity": self.similarity, "tokens": list(self.tokens), "crops": list(self.crops),
            "drift": self.words,
        }  # fmt: skip


def drift(before: Mapping[Key, PageReading], now: Sequence[PageReading], limits: CanaryConfig) -> Drift:
    """
    Args:
        before: the baseline; pages of `now` that it lacks are left out.
        now: every page that was to be read, with state `failed` where it was not.
    """
    both = [(before[page.key], page) for page in now if page.key in before]
    found = Drift(pages=len(both))
    if not both:
        return found
    for then, page in both:
        similarity = round(Indel.normalized_similarity(then.text, page.text), 4)
        found.similarity = similarity if found.similarity is None else min(found.similarity, similarity)
        name = f"page {page.page_index + 1} of {page.name}"
        if page.state != then.state and "failed" in (page.state, then.state):
            found.words.append(f"{name} was {then.state} and is {page.state}")
        elif similarity < limits.similarity:
            words = f"its text is {similarity:.3f} of what it was, below canary.similarity={limits.similarity:g}"
            found.words.append(f"{name}: {words}")
    found.tokens = _mean([then.tokens for then, _ in both]), _mean([page.tokens for _, page in both])
    found.crops = _mean([then.crops for then, _ in both]), _mean([page.crops for _, page in both])
    for noun, (was, is_), most in (("tokens", found.tokens, limits.tokens), ("crops", found.crops, limits.crops)):
        if abs(is_ - was) > most * was:
            found.words.append(f"{noun} a page were {was:g} and are {is_:g}, a change beyond canary.{noun}={most:g}")
    return found


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 2)
