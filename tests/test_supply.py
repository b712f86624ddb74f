"""The supply: every page once, in order, in blocks that begin small."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from pipelines.schema import Span
from pipelines.supply import Supply


def span(doc: str, first: int, count: int) -> Span:
    return Span(doc, 1, tuple(range(first, first + count)), f"/{doc}", 1000, "pdf")


def taken(supply: Supply, most: int = 3) -> list[list[Span]]:
    blocks: list[list[Span]] = []
    while (some := supply.take(most)) is not None:
        assert len(some) <= most
        blocks += some
    return blocks


@given(st.lists(st.integers(1, 8), max_size=40), st.integers(1, 5))
def test_every_page_once_and_in_order(sizes: list[int], most: int) -> None:
    supply = Supply(8)
    spans = [span(str(number), 0, size) for number, size in enumerate(sizes)]
    supply.put(spans)
    supply.close()
    blocks = taken(supply, most)
    pages = [(part.doc_id, page) for block in blocks for part in block for page in part.pages]
    assert pages == [(whole.doc_id, page) for whole in spans for page in whole.pages]
    for number, block in enumerate(blocks):
        assert sum(len(part.pages) for part in block) <= min(8, 2**number)


def test_blocks_begin_small_and_grow() -> None:
    supply = Supply(8)
    supply.put(span("long", first, 8) for first in range(0, 64, 8))
    supply.close()
    sizes = [sum(len(part.pages) for part in block) for block in taken(supply)]
    assert sizes[:3] == [1, 2, 4]
    assert max(sizes) == 8
    assert sum(sizes) == 64


def test_the_last_blocks_are_small_when_readers_share_what_is_left() -> None:
    supply = Supply(8)
    supply.put(span(str(number), 0, 1) for number in range(60))
    sizes = [sum(len(part.pages) for part in block) for block in supply.take(6, shares=4) or []]
    assert sizes == [1, 2, 4, 8, 8, 8]  # more may come
    supply.close()
    while (some := supply.take(1, shares=4)) is not None:
        sizes += [sum(len(part.pages) for part in block) for block in some]
    assert sizes[6:] == [8, 6, 4, 3, 2, 2, 1, 1, 1, 1]
    assert sum(sizes) == 60


def test_what_is_given_back_comes_first() -> None:
    supply = Supply(2)
    supply.put([span("a", 0, 2), span("b", 0, 2)])
    first = supply.take(1)
    assert first is not None
    supply.give_back(first)
    supply.close()
    assert [part.doc_id for block in taken(supply) for part in block] == ["a", "a", "b"]


def test_a_stop_ends_both_sides() -> None:
    supply = Supply(8)
    waiting = threading.Thread(target=supply.take, args=(1,))
    waiting.start()
    supply.stop()
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    assert supply.put([span("a", 0, 1)]) is False


def test_a_short_block_waits_while_readers_have_work() -> None:
    supply, hungry = Supply(8), threading.Event()
    supply._next_pages = 8
    supply.put([span("a", 0, 3)])
    got: list[list[list[Span]] | None] = []
    taking = threading.Thread(target=lambda: got.append(supply.take(1, hungry.is_set)))
    taking.start()
    taking.join(timeout=1)
    assert taking.is_alive()  # three pages only, and nobody is in a hurry
    supply.put([span("b", 0, 5)])
    taking.join(timeout=10)
    assert [[part.doc_id for part in block] for block in got[0] or []] == [["a", "b"]]
    supply.put([span("c", 0, 1)])
    taking = threading.Thread(target=lambda: got.append(supply.take(1, hungry.is_set)))
    taking.start()
    hungry.set()
    taking.join(timeout=10)
    assert [[part.doc_id for part in block] for block in got[1] or []] == [["c"]]
