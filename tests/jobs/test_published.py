"""Who reads for a person sees what is published, says what is held back, and shows it when asked to."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import pagemill
from pipelines.errors import ExitCode
from pipelines.ingest import ingest
from pipelines.lanes import Lane
from pipelines.output import open_existing
from pipelines.pipeline import Run
from pipelines.store.garbage import Collector
from pipelines.store.ledger import Ledger
from pipelines.store.records import record
from tests.builders import archive, pdf_bytes, text_pdf
from tests.conftest import Call, inline_config
from tests.store.made import A, B, C, Made

TABLE = "<table><tr><td>{}</td></tr></table>"
Night = Callable[..., str]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """A night over `in`, to `out`; its run's id. Shouting, it drifts."""
    known = archive(tmp_path / "known", {"known": 1})

    def run(reader: str = "Line", ends: ExitCode | None = None) -> str:
        settings = {"canary__documents": known, "recognize__engine": f"tests.readers:{reader}Reader"}
        config = inline_config(tmp_path / "out", **settings)
        ended = ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True, canaries=True)
        expected = ends or (ExitCode.OK if reader == "Line" else ExitCode.UNPUBLISHED)
        assert ended.exit_code == expected, ended.summary.message
        return ended.summary.run_id

    return run


@pytest.fixture
def drifted(night: Night, tmp_path: Path) -> str:
    """`a` and `b` were read; then `a` changed and `c` came, and the night that read both drifted: its run."""
    archive(tmp_path / "in", {"a": 1, "b": 1})
    night()
    text_pdf(tmp_path / "in" / "a.pdf", 1, "second edition")
    text_pdf(tmp_path / "in" / "c.pdf", 1)
    return night("Shouting")


def said(call: Call, *arguments: object) -> str:
    code, out = call(*arguments)
    assert code == 0, out
    return out


def ids(output: Path) -> dict[str, str]:
    return {Path(row["uri"]).stem: row["doc_id"] for row in pagemill.read(str(output), "sources").to_pylist()}


def test_show_has_the_published_edition_and_says_that_there_is_a_newer_one(call: Call, drifted: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    out = said(call, "show", output, "a.pdf")
    assert "Document a page 0" in out
    assert "1 document or a newer reading of it held back" in out
    assert drifted in out
    assert "--unpublished" in out
    assert "held back" not in said(call, "show", output, "b.pdf")
    out = said(call, "show", output, "a.pdf", "--unpublished")
    assert "DOCUMENT SECOND EDITION" in out
    assert "held back" not in out
    new = ids(output)
    for name in ("c.pdf", new["a"], new["c"][:20]):  # nothing else stands for these, by whatever name
        for page in ((), ("--page", 1)):
            code, out = call("show", output, name, *page)
            assert (code, "nothing of it is published" in out, drifted in out) == (ExitCode.BAD_CONFIG, True, True), out
            assert "DOCUMENT" not in out
            assert "DOCUMENT" in said(call, "show", output, name, "--unpublished", *page)
    code, out = call("show", output, "nothing.pdf")
    assert (code, "no document matches" in out, drifted in out) == (ExitCode.BAD_CONFIG, True, False), out
    said(call, "publish", output, drifted)
    for name in ("a.pdf", "c.pdf"):
        out = said(call, "show", output, name)
        assert ("DOCUMENT" in out, "held back" in out) == (True, False)


def test_exports_leave_out_what_is_held_back(call: Call, drifted: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    steps: list[tuple[tuple[str, ...], list[str], int]] = [
        ((), ["Document a", "Document b"], 2),
        (("--unpublished",), ["DOCUMENT C", "DOCUMENT SECOND", "Document b"], 0),
    ]
    for number, (option, begins, held) in enumerate(steps):
        target = tmp_path / f"export-{number}"
        out = said(call, "export", output, target, *option)
        files = [path.read_text() for path in target.rglob("*.md")]
        assert sorted(text[: len(begin)] for text, begin in zip(sorted(files), begins, strict=True)) == begins
        assert (f"{held} documents or newer readings of them held back" in out) == bool(held), out
        assert f"{len(begins)} documents" in out
        out = said(call, "tables", output, tmp_path / f"tables-{number}", *option)
        assert (f"{held} documents or newer readings of them held back" in out) == bool(held), out
    code, out = call("export", output, tmp_path / "no", "--document", "c.pdf")
    assert (code, "nothing of it is published" in out) == (ExitCode.BAD_CONFIG, True), out
    out = said(call, "export", output, tmp_path / "b", "--document", "b.pdf")
    assert "held back" not in out  # other documents are not what was asked for
    assert f"held back 2 documents or newer readings of them: of run {drifted}" in said(call, "status", output)
    said(call, "publish", output, drifted)
    assert "held back" not in said(call, "status", output)
    assert "held back" not in (out := said(call, "export", output, tmp_path / "all"))
    assert "3 documents" in out


def test_tables_of_a_reading_that_is_held_back_are_not_written(call: Call, tmp_path: Path) -> None:
    """Two readings of one document, the newer one held back."""
    made = Made(tmp_path / "out")
    made.source("t.pdf", A)
    for revision, run in ((1, "good"), (2, "bad")):
        made.commit(record("run", run_id=run, summary=json.dumps({"published": run == "good"})))
        made.opened(A, revision, [0])
        _table_span(made, A, revision, run)
        made.commit(record("document", doc_id=A, revision=revision, state="ok", page_count=1, ok=1, blank=0, degraded=0, failed=0,
                           run_id=run))  # fmt: skip
    made.ledger.release()
    for option, cell in (((), "good"), (("--unpublished",), "bad")):
        target = tmp_path / f"tables-{cell}"
        said(call, "tables", made.root, target, *option)
        (file,) = target.glob("*/*.csv")
        assert list(csv.reader(file.open(encoding="utf-8-sig"))) == [[cell]]


def _table_span(made: Made, doc_id: str, revision: int, cell: str) -> None:
    from pipelines.books import span_record
    from pipelines.schema import Block, Box, Span
    from pipelines.stages import begin

    works = begin([Span(doc_id, revision, (0,), "t.pdf", 1, "pdf")])
    works[0].pages[0].blocks = [Block("table", Box(0, 0, 9, 9), cell, "pixels", "e", "w", html=TABLE.format(cell))]
    made.commit(*(span_record(receipt, cell) for receipt in made.writer.write(works)))


def test_only_the_runs_that_hold_something_back_are_named(call: Call, tmp_path: Path) -> None:
    """What was read again since, by a run that is published, needs no publication; what a page of it still rests on does."""
    made = Made(tmp_path / "out")
    for run in ("one", "two", "three"):
        made.commit(record("run", run_id=run, summary=json.dumps({"published": None if run == "two" else False})))
    for doc_id, name in ((A, "whole"), (B, "part"), (C, "over")):
        made.source(f"{name}.pdf", doc_id)
    readings = [(A, 1, [0, 1], "one"), (A, 2, [0, 1], "two"), (A, 3, [0], "three"),  # the second stands for the first
                (B, 1, [0, 1], "one"), (B, 2, [0], "two"),  # page 1 is still that of the first
                (C, 1, [0, 1], "one"), (C, 2, [0, 1], "two")]  # fmt: skip
    for doc_id, revision, pages, run in readings:
        made.opened(doc_id, revision, pages)
        made.commit(record("span", doc_id=doc_id, revision=revision, pages=pages, states=["ok"] * len(pages),
                           codes=[""] * len(pages), tries=1, attempt=f"{doc_id[0]}{revision}", part="pages/none", run_id=run),
                    record("document", doc_id=doc_id, revision=revision, state="ok", page_count=2, ok=2, blank=0, degraded=0,
                           failed=0, run_id=run))  # fmt: skip
    made.ledger.release()
    for name, runs in (("whole.pdf", "run three, which is"), ("part.pdf", "run one, which is")):
        with pagemill.Output(made.root, parts=False, published=True) as opened:
            from pipelines.store.publishing import held_back

            assert f"of {runs} not published" in held_back(opened.con, [name]).words()
            assert held_back(opened.con, ["over.pdf"]).documents == 0
    out = said(call, "status", made.root)
    assert "held back 2 documents or newer readings of them: of runs three, one, which are" in out


def test_what_is_read_right_now_is_not_shown_before_it_was_judged(
    call: Call, night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that was killed before its canaries came back: half a document, of which nothing is complete."""
    archive(tmp_path / "in", {"a": 1})
    monkeypatch.setattr(Run, "_judge", lambda *_: None)
    monkeypatch.setattr("pipelines.assemble.finalize.Finalizer.finalize", _killed)
    night(ends=ExitCode.INTERRUPTED)
    code, out = call("show", tmp_path / "out", "a.pdf")
    assert (code, "nothing of it is published" in out) == (ExitCode.BAD_CONFIG, True), out
    assert "Document a" in said(call, "show", tmp_path / "out", "a.pdf", "--unpublished")
    assert "0 documents, 0 pages" in said(call, "export", tmp_path / "out", tmp_path / "export")


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_training_data_is_made_of_what_is_published(call: Call, drifted: str, tmp_path: Path) -> None:
    output, cache = tmp_path / "out", f"--set=source.cache_dir={tmp_path}/cache"
    for option, begins in (((), "Document"), (("--unpublished",), "DOCUMENT")):
        folder = tmp_path / f"sft-{begins}"
        out = said(call, "export-sft", output, folder, "--where", "markdown <> '' AND uri NOT LIKE '%b.pdf'", cache, *option)
        text = (folder / "train.jsonl").read_text()
        assert ("DOCUMENT" in text) == bool(option)
        assert ("held back" in out) != bool(option)


def test_garbage_collection_spares_what_is_published(night: Night, tmp_path: Path, call: Call) -> None:
    """Newest revisions alone are kept: the newest that is held back, and the newest that is published."""
    archive(tmp_path / "in", {"a": 2})
    output = tmp_path / "out"
    night()
    (tmp_path / "in" / "b.pdf").write_bytes(pdf_bytes(["words"]))
    plain = ["--set=layout.engine=none", "--set=raster.dpi=36", "--set=raster.engine=pypdfium2", "--inline", "--canaries",
             f"--set=source.cache_dir={output}-cache", f"--set=canary.documents={tmp_path / 'known'}"]  # fmt: skip
    shouting = [*plain, "--set=recognize.engine=tests.readers:ShoutingReader"]
    for _ in range(2):
        code, out = call("reprocess", output, "--where", "true", *shouting)
        assert (code, "NOT PUBLISHED" in out) == (ExitCode.UNPUBLISHED, True), out
    before = [pagemill.read(str(output), "pages", published=seen).to_pylist() for seen in (False, True)]
    assert {row["revision"] for row in before[0]} == {3}
    assert {row["revision"] for row in before[1]} == {1}
    config = inline_config(output)
    store = open_existing(str(output), config.store)
    ledger = Ledger(store, Lane())
    ledger.claim("gc", 1, 60)
    collector = Collector(store, [ledger], -3600, 1)
    done = collector.collect(collector.find())
    ledger.release()
    assert done.count["superseded part"] >= 1  # the second reading is nobody's
    assert [pagemill.read(str(output), "pages", published=seen).to_pylist() for seen in (False, True)] == before
    assert "Document a" in said(call, "show", output, "a.pdf")
    assert "DOCUMENT A" in said(call, "show", output, "a.pdf", "--unpublished")
