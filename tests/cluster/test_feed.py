"""The plan that crosses to Ray carries a span whole, whatever is in it."""

from __future__ import annotations

from pipelines.cluster.feed import decode_spans, encode_blocks
from pipelines.schema import Span, Splice


def test_spans_come_back_as_they_went() -> None:
    spliced = (Splice(4, (0, 7), "pages/part-1.parquet", "attempt"),)
    full = Span("d" * 64, 3, (4, 9), "s3://b/ü.pdf", 12, "pdf", 2, ("repaired",), "print", spliced, '{"top_p":0.5}', "layout", 17)
    plain = Span("e" * 64, 1, (0,), "/a", 1, "png")
    assert decode_spans(encode_blocks(5, [[full], [plain]])) == [full, plain]
    assert None not in [getattr(full, name) for name in full.__slots__]
    assert all(getattr(full, name) != getattr(plain, name) for name in Span.__slots__)  # a new field must be set here too
    assert [span.splices for span in full.cut(1)] == [spliced, ()]
