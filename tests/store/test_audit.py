"""The audit notices: an output is damaged in one way after another, as a broken disk, a hand or a wrong writer might do it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import pagemill
from pipelines.books import span_record
from pipelines.lanes import Lane, number_of
from pipelines.schema import Block, Box, Figure, Span
from pipelines.stages import begin
from pipelines.store.audit import audit
from pipelines.store.ledger import Ledger
from pipelines.store.live import install_live_spans
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder
from pipelines.store.reading import Output
from pipelines.store.records import record
from tests.store.made import A, B, C, Made

IMAGE = hashlib.sha256(b"a figure").hexdigest() + ".png"
IN_TABLE = hashlib.sha256(b"a figure in a table").hexdigest() + ".jpg"
MARKDOWN = f"{document_folder(A)}/{hashlib.sha256(b'# A').hexdigest()}.md"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Document A: three pages, one read again; B: two, on one record. Commits 1 to 15 are in segments, 16 and 17 are not."""
    root = tmp_path_factory.mktemp("audit") / "out"
    made = Made(root)
    made.source("/a.pdf", A, format="pdf", page_count=3)
    made.opened(A, 1, [0, 1, 2])
    _illustrated(made)
    made.span(A, 1, (1,), "worse")
    made.span(A, 1, (2,), "rest")
    made.store.put(MARKDOWN, b"# A")
    counts = {"page_count": 3, "state": "ok", "ok": 3, "blank": 0, "degraded": 0, "failed": 0, "markdown": MARKDOWN}
    made.commit(record("document", doc_id=A, revision=1, **counts))
    made.opened(A, 2, [1])
    made.span(A, 2, (1,), "better")
    made.commit(record("document", doc_id=A, revision=2, **counts))
    made.source("/b.pdf", B, format="pdf", page_count=2)
    made.opened(B, 1, [0, 1])
    made.span(B, 1, (0, 1), "short")
    made.complete(B, 1, 2)
    for _ in range(2):
        made.source("/c.pdf", None, error_code="SOURCE_UNREADABLE")
    made.ledger.release()
    made.ledger.close()
    return root


@pytest.fixture
def out(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "out"))


def _illustrated(made: Made) -> None:
    """Page 0 of A shows two images."""
    (work,) = begin([Span(A, 1, (0,), "uri", 3, "pdf")])
    box, (page,) = Box(0, 0, 9, 9), work.pages
    page.blocks = [
        Block("figure", box, "", "none", "test", "", image=IMAGE),
        Block("table", box, "", "pixels", "test", "", html=f'<table><tr><td><img src="{IN_TABLE}"></td></tr></table>'),
        Block("text", box, "words", "pixels", "test", ""),
    ]
    page.figures = [Figure(IMAGE, b"a figure"), Figure(IN_TABLE, b"a figure in a table")]
    made.commit(*[span_record(receipt, "run") for receipt in made.writer.write([work])])


def test_a_sound_output_is_found_sound(out: Path) -> None:
    result = audit(str(out), ["/a.pdf", "/b.pdf", "/c.pdf"])
    assert result.problems == []
    assert result.ok
    assert (result.sources, result.documents, result.pages, result.states) == (3, 2, 5, {"ok": 5})
    assert (result.parts, result.orphans) == (4, 0)


# -- what a person or a disk may do to it --------------------------------------------------------------------------------


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path, compression="zstd")


def _part_of(out: Path, sql: str) -> Path:
    with Output(str(out), parts=False) as output:
        return out / str(output.con.execute(sql).fetchall()[0][0])


def _merged_wrongly(out: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """B's part becomes another one, as a compaction with a fault would make it: its name is right, its rows are not."""
    old = _part_of(out, f"SELECT part FROM live_page WHERE doc_id = '{B}'")
    sink = io.BytesIO()
    pq.write_table(change(pq.read_table(old)), sink)
    new = f"pages/part-{hashlib.sha256(sink.getvalue()).hexdigest()}.parquet"
    (out / new).write_bytes(sink.getvalue())
    _moved(out, f"pages/{old.name}", new)


def _moved(out: Path, old: str, new: str) -> None:
    ledger = Ledger(ObjectStore(str(out)), merge_every=3)
    ledger.refresh()
    ledger.amend([record("moved", old_part=old, new_part=new)])
    ledger.close()


def _other_pages(table: pa.Table) -> pa.Table:
    return table.set_column(table.schema.get_field_index("doc_id"), "doc_id", pa.array([A, A]))


def _other_states(table: pa.Table) -> pa.Table:
    return table.set_column(table.schema.get_field_index("state"), "state", pa.array(["ok", "failed"]))


def _without_source(table: pa.Table) -> pa.Table:
    return table.filter(pc.fill_null(pc.not_equal(table.column("uri"), "/b.pdf"), True))


def _with_another_fingerprint(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("fingerprint")
    return table.set_column(at, "fingerprint", pa.array(["another"] * len(table)))


def _lost_count(out: Path) -> None:
    """Planned, and nothing says how many pages it has or that it could not be opened."""
    ledger = Ledger(ObjectStore(str(out)), merge_every=3)
    ledger.claim("later", 1, 60)
    ledger.append([record("source", uri="/d.pdf", presence="present", doc_id=C)])
    ledger.append([record("revision", doc_id=C, revision=1, pages=[0], fingerprint="print")])
    ledger.release()
    ledger.close()


def _stray_lane(out: Path) -> None:
    shutil.copytree(out / "ledger/0", out / "ledger/1")


LEDGER = "ledger/0"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part with one byte flipped": (lambda out: _flip(_part_of(out, "SELECT part FROM live_page"), 200), "do not hash"),
    "a row twice in a merged part": (
        lambda out: _merged_wrongly(out, lambda table: pa.concat_tables([table, table.slice(1, 1)])), "more than once"),
    "rows of another document in a merged part": (lambda out: _merged_wrongly(out, _other_pages), "is not in it as the ledger"),
    "another state in a merged part": (lambda out: _merged_wrongly(out, _other_states), "is not in it as the ledger"),
    "a merged part without rows": (lambda out: _merged_wrongly(out, lambda table: table.slice(0, 0)), "is not in it"),
    "an image with one byte flipped": (lambda out: _flip(out / document_folder(A) / IMAGE, 3), f"{IMAGE} of document"),
    "an image in a table missing": (lambda out: (out / document_folder(A) / IN_TABLE).unlink(), f"{IN_TABLE} of document"),
    "Markdown missing": (lambda out: (out / MARKDOWN).unlink(), f"{MARKDOWN}: missing"),
    "Markdown with one byte flipped": (lambda out: _flip(out / MARKDOWN, 1), f"{MARKDOWN}: its bytes"),
    "a merged commit truncated": (
        lambda out: (out / LEDGER / "00000004.parquet").write_bytes((out / LEDGER / "00000004.parquet").read_bytes()[:900]),
        "00000004.parquet: not readable"),
    "a merged commit gone": (lambda out: (out / LEDGER / "00000004.parquet").unlink(), "00000004.parquet: missing"),
    "a merged commit replaced by another": (
        lambda out: shutil.copy(out / LEDGER / "00000005.parquet", out / LEDGER / "00000004.parquet"), "not those of commit 4"),
    "a segment that lost a record": (
        lambda out: _rewrite(out / LEDGER / "segments/2/00000001-00000009.parquet", lambda table: table.slice(0, 1)),
        "does not say what commit"),
    "a segment that lost a source": (
        lambda out: [_rewrite(path, _without_source) for path in (out / LEDGER / "segments").rglob("*.parquet")],
        "does not say what commit"),
    "a segment with another fingerprint": (
        lambda out: [_rewrite(path, _with_another_fingerprint) for path in (out / LEDGER / "segments").rglob("*.parquet")],
        "does not say what commit"),
    "a segment with a record more": (
        lambda out: [_rewrite(path, lambda table: pa.concat_tables([table, table.slice(len(table) - 1)]))
                     for path in (out / LEDGER / "segments").rglob("*.parquet")],
        "does not say what commit"),
    "a gap before the last commits": (lambda out: (out / LEDGER / "00000016.parquet").unlink(), "00000016.parquet: missing"),
    "a ledger of a lane that does not exist": (_stray_lane, "ledger/1: holds commits"),
    "a document without a count and without an outcome": (_lost_count, "nor what became of it"),
}  # fmt: skip


# what an audit that believed segments, or looked at live rows alone, did not see; the others with the long tests
_FIRST = (
    "a row twice in a merged part", "an image with one byte flipped",
    "a merged commit truncated", "a segment that lost a source", "a gap before the last commits",
)  # fmt: skip


@pytest.mark.parametrize("damage", [name if name in _FIRST else pytest.param(name, marks=pytest.mark.long) for name in DAMAGES])
def test_the_audit_notices(damage: str, out: Path) -> None:
    do, words = DAMAGES[damage]
    do(out)
    result = audit(str(out))
    assert not result.ok
    assert any(words in problem for problem in result.problems), result.problems


def test_a_part_of_a_superseded_reading_is_missed_and_no_error(out: Path) -> None:
    """Whoever asks for the history finds out; every live page is intact."""
    _part_of(out, "SELECT part FROM span_page WHERE doc_id < 'b' AND revision = 1 AND page_index = 1").unlink()
    result = audit(str(out))
    assert result.ok, result.problems
    (words,) = result.history
    assert words.endswith("missing; it holds superseded readings only")


def test_fewer_lanes_than_there_are(tmp_path: Path) -> None:
    """`pagemill.json` of another output: half of the archive would be gone unseen."""
    root = tmp_path / "out"
    for lane in (0, 1):
        made = Made(root, Lane(lane, 2))
        uri = next(uri for uri in (f"/{name}.pdf" for name in "abcdefgh") if number_of(uri, 2) == lane)
        doc_id = (A, B)[lane]
        made.source(uri, doc_id, format="pdf", page_count=1)
        made.opened(doc_id, 1, [0])
        made.span(doc_id, 1, (0,), "text")
        made.complete(doc_id, 1, 1)
        made.ledger.release()
    assert audit(str(root)).ok
    mark = root / "pagemill.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"lanes": 1}))
    assert any("ledger/1" in problem for problem in audit(str(root)).problems)


# -- what harms nobody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [[1, 4, 6], [1, 1, 5], [1, "1", "6"], [7, 1, 6]])
def test_a_checkpoint_that_is_wrong_is_passed_over(out: Path, entry: list[object]) -> None:
    """Older ones and the commits say the same: readers see every page, and nothing is damaged."""
    before = pagemill.read(str(out), "pages", columns=["doc_id", "page_index", "markdown"])
    for path in (out / LEDGER / "checkpoints").iterdir():
        path.write_text(json.dumps({"last": 9, "segments": [entry, [1, 7, 9]]}))
    assert pagemill.read(str(out), "pages", columns=["doc_id", "page_index", "markdown"]).equals(before)
    assert audit(str(out)).ok


def test_a_page_in_two_live_parts_counts_once(out: Path) -> None:
    """Two compactions at once may copy a row twice; the ledger names one place."""
    old = _part_of(out, f"SELECT part FROM live_page WHERE doc_id = '{B}'")
    copy = _part_of(out, f"SELECT part FROM live_page WHERE doc_id = '{A}'")
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables([pq.read_table(copy), pq.read_table(old)]), sink)
    new = f"pages/part-{hashlib.sha256(sink.getvalue()).hexdigest()}.parquet"
    (out / new).write_bytes(sink.getvalue())
    _moved(out, f"pages/{copy.name}", new)
    assert audit(str(out)).ok
    assert len(pagemill.read(str(out), "pages")) == 5


# -- live spans are the one rule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_pages", [1, 2_000_000])
def test_live_spans_say_what_the_one_rule_says(tmp_path: Path, most_pages: int) -> None:
    made, names = Made(tmp_path / "out"), [digit * 64 for digit in "abcdef0123"]
    for doc_id in names:
        made.opened(doc_id, 1, [0, 1, 2, 3])
    made.span(names[0], 1, (0, 1), "whole")
    made.span(names[0], 1, (2, 3), "whole")
    made.complete(names[0], 1, 4)
    made.span(names[1], 1, (0, 1, 2), "overlapping")
    made.span(names[1], 1, (2, 3), "overlapping")
    made.complete(names[1], 1, 4)
    made.span(names[2], 1, (0, 1, 2, 3), "open")
    made.opened(names[2], 2, [0])
    made.span(names[2], 2, (0,), "of a second one while the first is open")
    made.span(names[3], 1, (0, 3), "with a gap")
    made.span(names[3], 1, (1, 2), "into the gap")
    made.complete(names[3], 1, 4)
    made.span(names[4], 1, (0, 1, 2, 3), "read again")
    made.complete(names[4], 1, 4)
    made.opened(names[4], 2, [1, 2])
    made.span(names[4], 2, (1, 2), "again")
    made.complete(names[4], 2, 4)
    made.opened(names[4], 3, [3])
    made.span(names[4], 3, (3,), "not finished")
    odd = {"doc_id": names[5], "revision": 1, "attempt": "x", "part": "pages/part-x.parquet", "codes": ["", "", ""]}
    made.commit(record("span", **odd, pages=[0, 0, 2], states=["ok", "blank", "ok"]))
    made.commit(record("span", **odd | {"doc_id": names[6]}, pages=[0, 1, 2], states=["ok", "ok"]))
    columns = "part, doc_id, attempt, page_index, state"
    with Output(made.root, parts=False) as output:
        install_live_spans(output.con, most_pages)
        unnested = "SELECT part, doc_id, attempt, unnest(pages) AS page_index, unnest(states) AS state FROM live_span"
        found = output.con.execute(f"SELECT {columns} FROM ({unnested}) ORDER BY ALL").fetchall()
        rule = output.con.execute(f"SELECT {columns} FROM live_page WHERE doc_id <> ? ORDER BY ALL", [names[5]]).fetchall()
        repeated = output.con.execute("SELECT doc_id FROM repeated_document ORDER BY 1").fetchall()
    assert [row for row in found if row[1] != names[5]] == rule
    assert [row[3] for row in found if row[1] == names[5]] == [0, 2]  # of a page that one record names twice, either state
    assert {doc_id for (doc_id,) in repeated} == {*names[1:7]}
