"""What changed between two runs: every page counted once, changes word by word, and the page that shows them injects nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cli import app
from pipelines.books import span_record
from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.observe import compare as module
from pipelines.observe.compare import compare, page_text
from pipelines.observe.diff import render_diff
from pipelines.output import open_output
from pipelines.schema import Block, Box, PageError, Span
from pipelines.stages import begin
from pipelines.store.ledger import Ledger
from pipelines.store.parts import PartWriter
from pipelines.store.reading import Output
from pipelines.store.records import record
from tests.observe.conftest import Browser

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
HOSTILE = "</ins></div><script>window.hacked=1</script><img src=x onerror=window.hacked=1> --> \u202e مرحبا"


class Runs:
    """An output with the pages of several runs, written commit by commit."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.store = open_output(self.root, load().store)
        self.ledger = Ledger(self.store)
        self.ledger.claim("first", 1, 60)
        for name, doc_id in (("one", A), ("two", B), ("three", C)):
            self.ledger.append([record("source", uri=f"/in/deep/{name}.pdf", presence="present", doc_id=doc_id, format="pdf")])

    def run(self, run_id: str, doc_id: str, revision: int, *texts: str) -> None:
        pages = tuple(range(len(texts)))
        (work,) = begin([Span(doc_id, revision, pages, "uri", len(texts), "pdf")])
        for page, text in zip(work.pages, texts, strict=True):
            page.markdown = text
            html = f"<table><tr><td>{text}</td><td>1 &amp; 2</td></tr></table>" if text.startswith("|") else None
            page.blocks = [Block("table" if html else "text", Box(0, 0, 9, 9), text, "pixels", "e", "", html=html)]
            if text == "FAILED":
                page.error = PageError("PAGE_TIMEOUT", "rasterize", "slow")
        records = [span_record(r, run_id) for r in PartWriter(self.store, run_id, "f").write([work])]
        opened = record("revision", doc_id=doc_id, revision=revision, pages=list(pages), fingerprint="f", run_id=run_id)
        self.ledger.append([opened, *records, record("run", run_id=run_id, summary="{}")])


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    made = Runs(tmp_path / "out")
    long = " ".join(f"word{n}" for n in range(400))
    made.run("first", A, 1, "the same", f"{long} old end", "FAILED", "| cell")
    made.run("first", B, 1, "only before")
    made.run("second", A, 2, "the same", f"{long} new end", "now read", "| call")
    made.run("second", C, 1, "only after", HOSTILE)
    made.run("third", A, 3, "", HOSTILE, "now read", "| call")
    return made


def compared(root: str, one: str, other: str) -> module.Comparison:
    with Output(root, parts=False) as before, Output(root, parts=False) as after:
        return compare(before, one, after, other)


def test_every_page_is_counted_once(runs: Runs) -> None:
    found = compared(runs.root, "first", "second")
    assert (found.pages, found.both, found.equal, found.changed, found.compared) == ((5, 6), 4, 1, 3, 3)
    assert found.states == {("failed", "ok"): 1}
    assert sum(found.similarity) == 3
    assert [change.page_index for change in found.changes] == [2, 3, 1]  # the most changed first
    failed, table, end = found.changes
    assert failed.states == ("failed", "ok")
    assert [p for p in table.pieces if p[0] in ("gone", "new")] == [("gone", "cell"), ("new", "call")]
    assert ("equal", " | 1 & 2") in [(kind, text.rstrip()) for kind, text in table.pieces] or "1 & 2" in str(table.pieces)
    kinds = [kind for kind, _ in end.pieces]
    assert kinds.count("gone") == kinds.count("new") == 1
    assert any(kind == "left out" and "equal words" in text for kind, text in end.pieces)
    assert sum(len(text) for _, text in end.pieces) < 400
    same = compared(runs.root, "second", "second")
    assert (same.changed, same.equal, same.changes) == (0, 6, [])
    with pytest.raises(ConfigError, match="no run fourth"):
        compared(runs.root, "first", "fourth")


def test_only_the_most_changed_are_kept(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_SHOWN", 1)
    found = compared(runs.root, "first", "second")
    assert found.compared == 3
    assert [change.page_index for change in found.changes] == [2]
    monkeypatch.setattr(module, "_MOST_COMPARED", 2)
    assert compared(runs.root, "first", "second").compared == 2


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "\n", "|"]), max_size=120), st.lists(st.sampled_from("abc|"), max_size=120))
def test_what_is_gone_and_new_is_all_there(before: list[str], after: list[str]) -> None:
    rows = [
        {"doc_id": A, "page_index": 0, "state": "ok", "error_code": None,
         "blocks": [{"label": "text", "html": None, "content": " ".join(words)}]}
        for words in (before, after)
    ]  # fmt: skip
    change = module._change(rows[0], rows[1], "")
    gone = sum(len(module._TOKEN.findall(text)) for kind, text in change.pieces if kind == "gone")
    new = sum(len(module._TOKEN.findall(text)) for kind, text in change.pieces if kind == "new")
    one, other = (len(module._TOKEN.findall(page_text(row))) for row in rows)
    assert new - gone == other - one
    assert (change.similarity == 1.0) == (page_text(rows[0]) == page_text(rows[1]))


def test_the_page_shows_changes_and_injects_nothing(browser: Browser, runs: Runs, tmp_path: Path) -> None:
    path = tmp_path / "diff.html"
    path.write_bytes(render_diff(compared(runs.root, "second", "third")).encode("utf-8", "replace"))
    browser.open(path)
    assert browser.js("return document.querySelectorAll('article.change').length") == 2
    assert HOSTILE.split()[-1] in browser.js("return [...document.querySelectorAll('ins')].map(n => n.textContent).join(' ')")
    assert "the same" in browser.js("return [...document.querySelectorAll('del')].map(n => n.textContent).join(' ')")
    assert browser.js("return document.querySelector('h1').innerText") == "2 of 4 pages that both runs read differ"
    browser.js("const kind = document.querySelector('#kind'); kind.value = 'new'; kind.dispatchEvent(new Event('input'))")
    assert browser.js("return [...document.querySelectorAll('article.change')].filter(n => !n.hidden).length") == 1
    assert browser.js("return typeof window.hacked") == "undefined"
    assert browser.js("return [document.scripts.length, document.images.length]") == [1, 0]
    assert browser.console() == []
    assert len(browser.requests()) == 1
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")


def test_the_command_takes_a_second_output(runs: Runs, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    other = Runs(tmp_path / "other")
    other.run("elsewhere", A, 1, "the same", "quite other words", "FAILED", "| cell")
    target = tmp_path / "d" / "diff.html"
    done = CliRunner().invoke(app, ["diff", runs.root, "first", "elsewhere", "--other", other.root, "--to", str(target)])
    assert done.exit_code == 0, done.output
    assert "4 pages in both: 3 equal, 1 changed" in done.output
    assert "quite" in target.read_text("utf-8")
