"""Accuracy without labels: what a model read, held against a trustworthy text layer, block by block.

Invariant: pure; 0..1, None where the two cannot be compared (no layer there, or content that a layer does not have: LaTeX).
"""

from __future__ import annotations

import html
import re
import unicodedata

_TAG = re.compile(r"<[^>]*>")
STRONG = 0.5  # below it two texts of some length are not the same text; OCR of clean print is above 0.95
LONG = 20  # characters of a block worth judging


def agreement(read: str, layer: str) -> float | None:
    """Share of characters in common, in order (1 - normalised edit distance, insertions and deletions), spaces left out.

    Args:
        read: content of a block; of a table without its tags.
        layer: the words of the text layer in the block's region.
    """
    from rapidfuzz.distance import Indel

    one, two = plain(read), plain(layer)
    if not two:
        return None
    return float(Indel.normalized_similarity(one, two))


def disagrees(read: str, layer: str, similarity: float | None) -> bool:
    """Whether a block should be looked at by somebody."""
    return similarity is not None and similarity < STRONG and max(len(plain(read)), len(plain(layer))) >= LONG


def without_tags(markup: str) -> str:
    """What stands in the cells of a table."""
    return html.unescape(_TAG.sub(" ", markup))


def plain(text: str) -> str:
    """Characters that both sides write alike: NFKC, no spaces, no hyphens."""
    text = unicodedata.normalize("NFKC", text)
    return "".join(char for char in text if not char.isspace() and char not in "\u00ad-")
