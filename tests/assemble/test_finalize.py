"""Finalize finds a document's rows in whatever part holds them: its own, or a compacted one of many documents."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.assemble import finalize
from pipelines.assemble.finalize import Finalizer, rows_of
from pipelines.schema import PAGES, Block, Box, PageWork
from pipelines.source.planner import LivePage, Revision
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import page_row

OWN = {"revision": 1, "fingerprint": "f", "run_id": "r", "attempt": "a", "span_first": 0, "span_pages": 1}


def part(documents: str, row_group_size: int, statistics: bool = True) -> bytes:
    rows = []
    for number, letter in enumerate(documents):
        page = PageWork(letter * 64, number, markdown=f"page {number}")
        page.blocks = [Block("table", Box(0, 0, 1, 1), "", "pixels", "e", "", html=f"<table>{number}</table>")]
        rows.append(page_row(page) | OWN)
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=PAGES)
    pq.write_table(table, sink, row_group_size=row_group_size, write_statistics=statistics)
    return sink.getvalue()


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("row_group_size", [1, 2, 100])
def test_a_documents_rows_wherever_they_lie(row_group_size: int, statistics: bool) -> None:
    data = part("abacabdd", row_group_size, statistics)
    for letter, pages in {"a": [0, 2, 4], "b": [1, 5], "c": [3], "d": [6, 7], "e": []}.items():
        rows = rows_of(pa.BufferReader(data), letter * 64).to_pylist()
        assert [row["page_index"] for row in rows] == pages
        assert [row["markdown"] for row in rows] == [f"page {page}" for page in pages]
        assert [row["blocks"][0]["html"] for row in rows] == [f"<table>{page}</table>" for page in pages]
        assert all(row["blocks"][0]["label"] == "table" for row in rows)


@pytest.mark.parametrize(("row_group_size", "most_bytes", "gets"), [(100, 1 << 20, 1), (2, 1 << 20, 4), (100, 64, 4)])
def test_documents_that_share_a_small_part_cost_one_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group_size: int, most_bytes: int, gets: int
) -> None:
    monkeypatch.setattr(finalize, "_MOST_BYTES", most_bytes)
    store = ObjectStore(str(tmp_path))
    store.put("pages/part-1.parquet", part("aaabbccd", row_group_size))
    finalizer, pages = Finalizer(store, "run"), {"a": [0, 1, 2], "b": [3, 4], "c": [5, 6], "d": [7]}
    for letter, own in pages.items():
        live = {page: LivePage("pages/part-1.parquet", "a", "ok", "", 1) for page in own}
        done = finalizer.finalize(Revision(letter * 64, 1, len(own), set(), live))
        written = (tmp_path / done["markdown"]).read_text()
        assert [line for line in written.splitlines() if line.startswith("page ")] == [f"page {page}" for page in own]
        assert done["ok"] == len(own)
    assert store.counts["get"] == gets
