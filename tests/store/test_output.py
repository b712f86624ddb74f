"""docs/output.md is true: its columns are the schemas', its recipes run, on an output with rows that must not be seen."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pagemill
from pipelines.schema import BLOCK, PAGES
from pipelines.store.audit import audit
from pipelines.store.ledger import Ledger
from pipelines.store.parts import part_bytes
from pipelines.store.records import record
from tests.store.made import A, B, C, Made

DOCUMENT = Path(__file__).parents[2] / "docs" / "output.md"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path / "out")
    made.source("/a.pdf", A, format="pdf", page_count=3)
    made.opened(A, 1, [0, 1, 2])
    made.span(A, 1, (0, 1, 2), "orphan", commit=False)
    made.span(A, 1, (0, 1), "first")
    made.span(A, 1, (1, 2), "again")  # overlaps: the newer record counts
    made.complete(A, 1, 3)
    made.source("/b.pdf", B, format="pdf", page_count=2)
    made.opened(B, 1, [0, 1])
    made.span(B, 1, (0,), "half")  # still open: what is there is seen
    return made


def test_orphans_overlaps_and_open_documents(made: Made) -> None:
    assert made.markdown() == {("a", 0): "first 0", ("a", 1): "again 1", ("a", 2): "again 2", ("b", 0): "half 0"}
    result = audit(made.root)
    assert (result.pages, result.pending, result.orphans, result.ok) == (5, 1, 1, False)
    assert not result.problems


def test_a_later_revision_counts_when_it_is_complete(made: Made) -> None:
    before = made.markdown()
    made.opened(A, 2, [1])
    made.span(A, 2, (1,), "better")
    assert made.markdown() == before
    made.complete(A, 2, 3)
    assert made.markdown() == before | {("a", 1): "better 1"}


def test_a_changed_object_hides_its_old_document_and_a_vanished_one_keeps_it(made: Made) -> None:
    made.commit(record("source", uri="/a.pdf", presence="vanished", doc_id=A))
    assert ("a", 0) in made.markdown()
    made.source("/a.pdf", C)
    assert ("a", 0) not in made.markdown()
    made.source("/copy.pdf", A)
    assert ("a", 0) in made.markdown()
    history = pagemill.read(made.root, "pages", history=True).to_pylist()
    assert sorted({row["is_live"] for row in history}) == [False, True]


def test_parts_that_were_merged_are_read_where_they_are(made: Made) -> None:
    before = made.markdown()
    with pagemill.Output(made.root) as output:
        found = output.con.execute("SELECT DISTINCT part FROM live_page WHERE doc_id = ? ORDER BY 1", [A]).fetchall()
    old = [str(row[0]) for row in found]
    assert len(old) == 2
    data = part_bytes([row for part in old for row in pq.read_table(f"{made.root}/{part}").to_pylist()])
    new = f"pages/part-{hashlib.sha256(data).hexdigest()}.parquet"
    made.store.put(new, data)
    made.commit(*[record("moved", old_part=part, new_part=new) for part in old])
    for part in old:
        made.store.delete(part)
    assert made.markdown() == before
    assert not audit(made.root).problems


def test_audit_sees_a_flipped_byte_a_missing_part_and_a_missing_page(made: Made) -> None:
    made.span(B, 1, (1,), "rest")
    made.complete(B, 1, 2)
    assert audit(made.root, ["/a.pdf", "/b.pdf"]).ok
    assert not audit(made.root, ["/a.pdf", "/new.pdf"]).ok
    with pagemill.Output(made.root) as output:
        parts = [Path(made.root) / row[0] for row in output.con.execute("SELECT DISTINCT part FROM live_page").fetchall()]
    for part in parts:
        data = part.read_bytes()
        part.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        assert not audit(made.root).ok
        part.unlink()
        assert not audit(made.root).ok
        part.write_bytes(data)
        assert audit(made.root).ok
    made.opened(C, 1, [0, 1])
    made.source("/c.pdf", C, format="pdf", page_count=2)
    made.span(C, 1, (0,), "one")
    made.complete(C, 1, 2)  # claims a page that no span covers
    assert any("page" in problem for problem in audit(made.root).problems)


def test_a_part_of_an_older_minor_version_stays_readable(made: Made) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pagemill.Output(made.root) as output:
        parts = [Path(made.root) / row[0] for row in output.con.execute("SELECT DISTINCT part FROM live_page").fetchall()]
    blocks = pa.list_(pa.struct([field for field in BLOCK if field.name != "agreement"]))
    for part in parts:
        table = pq.read_table(part)
        older = table.set_column(table.schema.get_field_index("blocks"), "blocks", pa.nulls(len(table), blocks))
        pq.write_table(older.drop_columns(["cpu_s"]), part)
    rows = pagemill.read(made.root, "pages").to_pylist()
    assert len(rows) == 4
    assert {row["cpu_s"] for row in rows} == {None}
    assert "agreement" in pagemill.read(made.root, "blocks").column_names


def test_a_ledger_of_an_older_minor_version_stays_readable_and_is_written_on(made: Made) -> None:
    before = made.markdown(), pagemill.read(made.root, "documents").to_pylist(), audit(made.root).pages
    made.ledger.release()
    for file in Path(made.root).rglob("ledger/0/**/*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["blocks", "options"]), file)
    assert (made.markdown(), pagemill.read(made.root, "documents").to_pylist(), audit(made.root).pages) == before
    ledger = Ledger(made.store, merge_every=3)
    ledger.claim("later", 1, 60)
    for number in range(7):  # what is merged into segments has all columns
        ledger.append([record("revision", doc_id=A, revision=2 + number, pages=[1], blocks=[[0]], fingerprint="new")])
    ledger.release()
    ledger.close()
    assert (made.markdown(), pagemill.read(made.root, "documents").to_pylist(), audit(made.root).pages) == before


def test_what_does_not_fit_into_memory_lies_in_a_folder_of_the_readers_own(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pagemill.Output(made.root) as opened:
        opened.con.execute("SET memory_limit = '20MiB'; SET threads = 1")
        opened.con.execute("CREATE TEMP TABLE many AS SELECT p.doc_id, md5(r::VARCHAR) AS mark FROM pages p, range(150_000) t(r)")
        spilled = [Path(row[0]) for row in opened.con.execute("SELECT path FROM duckdb_temporary_files()").fetchall()]
        assert spilled
        assert all(path.exists() and path.is_relative_to(scratch) for path in spilled)
    assert list(here.iterdir()) == []
    assert list(scratch.iterdir()) == []


def test_every_column_is_documented() -> None:
    words = set(re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    assert {*PAGES.names, *(field.name for field in BLOCK)} <= words
    for field in [*PAGES, *BLOCK]:
        if field.metadata and b"volatile" in field.metadata:
            row = next(
                line
                for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
                if line.startswith("| `") and f"`{field.name}`" in line
            )
            assert "*volatile*" in row or field.name == "seconds", field.name


@pytest.mark.parametrize("library", ["duckdb", "polars", "pandas"])
def test_recipes_see_live_rows_only(made: Made, library: str) -> None:
    made.failed(B, 1, 1)
    code = re.search(rf"```python {library}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    assert code is not None
    scope: dict[str, object] = {"OUTPUT": made.root}
    exec(code.group(1), scope)  # the document's own code
    assert [tuple(row) for row in scope["result"]] == [("failed", 1), ("ok", 4)]  # type: ignore[attr-defined]
