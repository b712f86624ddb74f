"""Which pages the report shows: bounded, the same whatever the order, some of each kind; and what is counted of quality."""

from __future__ import annotations

import json
import random

from pipelines.observe.quality import BINS, Quality, certainty
from pipelines.observe.sample import Pick, Sampler
from pipelines.observe.summary import Summary
from pipelines.schema import Block, Box, PageWork, SpanReceipt
from pipelines.stages import Outcome


def receipt(doc: int, pages: int, state: str = "ok") -> SpanReceipt:
    name = f"{doc:064x}"
    return SpanReceipt(name, 1, tuple(range(pages)), (state,) * pages, ("",) * pages, 1, "attempt", f"part-{doc}")


def chosen(receipts: list[SpanReceipt], most: int) -> list[tuple[str, int, str]]:
    sampler = Sampler()
    for one in receipts:
        sampler.saw(one, one.doc_id)
    return [(pick.doc_id, pick.page_index, pick.reason) for pick in sampler.choose(most)]


def test_the_choice_does_not_depend_on_the_order() -> None:
    receipts = [receipt(n, n % 7 + 1, "degraded" if n % 5 == 0 else "ok") for n in range(400)]
    first = chosen(receipts, 24)
    assert len(first) == len(set(first)) == 24
    for seed in range(3):
        random.Random(seed).shuffle(receipts)
        assert chosen(receipts, 24) == first


def test_some_of_each_kind_and_no_document_alone() -> None:
    receipts = [receipt(1, 5000), receipt(2, 3, "failed"), receipt(3, 40, "degraded"), *(receipt(n, 1) for n in range(4, 60))]
    found = chosen(receipts, 24)
    reasons = [reason for _, _, reason in found]
    assert reasons.count("failed") == 3
    assert reasons.count("degraded") == 6
    assert sum(int(doc, 16) == 1 for doc, _, _ in found) <= 6
    assert len({doc for doc, _, _ in found}) > 5


def test_a_small_run_is_shown_whole_and_memory_is_bounded() -> None:
    assert len(chosen([receipt(1, 13)], 24)) == 13
    assert chosen([receipt(1, 13)], 0) == []
    sampler = Sampler()
    for number in range(3000):
        sampler.saw(receipt(number, 2, random.Random(number).choice(["ok", "blank", "failed", "degraded"])), "")
        sampler.doubted(number / 3000, 0, "", receipt(number, 1))
    assert sum(map(len, [*sampler._heaps.values(), *sampler._documents.values()])) < 700
    assert [round(pick.rank * 3000) for pick in sampler.doubtful()] == list(range(20))


def test_a_pick_survives_json_and_a_newer_minor_version() -> None:
    sampler = Sampler()
    sampler.saw(receipt(1, 1), "/a.pdf")
    (pick,) = sampler.choose(1)
    again = Pick.from_dict(json.loads(json.dumps(pick.as_dict() | {"new in 1.1": 3})))
    assert again.as_dict() == pick.as_dict()


def block(content: str, confidence: float | None = None, agreement: float | None = None) -> Block:
    return Block("text", Box(0, 0, 1, 1), content, "pixels", "e", "", confidence=confidence, agreement=agreement)


def test_quality_counts_every_block_once() -> None:
    page = PageWork("d", 0, blocks=[block("abcd", 1.0), block("ab", 0.5, 0.0), block("a")], flags=["repaired"])
    quality = Quality()
    quality.add(page)
    other = Quality()
    other.add(page)
    quality.merge(other)
    assert quality.characters == {"pixels": 14}
    assert (quality.sources, quality.flags) == ({"pixels": 6}, {"repaired": 2})
    assert (sum(quality.confidence), quality.confidence[BINS - 1], quality.confidence[BINS // 2]) == (4, 2, 2)
    assert (sum(quality.agreement), quality.agreement[0]) == (2, 2)
    assert certainty(page) == 0.0
    assert certainty(PageWork("d", 0, blocks=[block("abc", 1.0), block("a", 0.6)])) == 0.9
    assert certainty(PageWork("d", 0, blocks=[block("a")])) is None


def test_what_a_document_cost_is_the_sum_of_its_spans() -> None:
    summary = Summary("run", "s", "o", "f", {})
    for seconds in (1.0, 2.5):
        outcome = Outcome(
            receipts=[receipt(1, 2)], slowest=(seconds, f"{1:064x}", 1, "/a.pdf"), doubtful=(0.4, f"{1:064x}", 1, "/a.pdf")
        )
        outcome.document_seconds[f"{1:064x}"] = seconds  # type: ignore[assignment]
        summary.worked(outcome)
    summary.document_done(f"{1:064x}", "/a.pdf", 2, "ok")
    shown = summary.as_dict()
    assert shown["slowest_documents"] == [{"seconds": 3.5, "doc_id": f"{1:064x}", "uri": "/a.pdf", "pages": 2, "state": "ok"}]
    assert [page["seconds"] for page in shown["slowest"]] == [2.5, 1.0]
    assert shown["doubtful"][0] | {"certainty": 0.4, "page_index": 1, "part": "part-1"} == shown["doubtful"][0]
    assert not summary._document_seconds
