"""Spans grouped into blocks: what flows through Ray.

Invariant: order is kept, no span is cut or left out, and a block holds at most `most_pages` pages unless one span alone
has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipelines.schema import Span


def blocks(spans: Iterable[Span], most_pages: int) -> Iterator[list[Span]]:
    """One span of a long document, or the spans of several short ones."""
    block: list[Span] = []
    pages = 0
    for span in spans:
        if block and pages + len(span.pages) > most_pages:
            yield block
            block, pages = [], 0
        block.append(span)
        pages += len(span.pages)
    if block:
        yield block
