"""Text of documents, names and errors stays text: in Markdown, in the report, in a difference, in tables."""

from __future__ import annotations

import io
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.assemble.page import block_markdown
from pipelines.export.documents import Exported
from pipelines.export.tables import Table, XlsxWriter
from pipelines.observe.compare import Change, Comparison
from pipelines.observe.diff import render_diff
from pipelines.observe.summary import Failure
from pipelines.recognize.markup import table_markup
from pipelines.schema import LABELS
from pipelines.store.objects import ObjectStore
from tests.observe.made import block, report, shown_page
from tests.observe.test_browser import HOSTILE

MARKDOWN = [
    "[a](javascript:x)", "![a](http://h/x)", "<http://h/>", "# t", "a\n===", "> q", "| a |\n|---|\n| c |", "&#60;b&#62;",
    "```\nx\n```", "~~~\nx", "[a]: http://h\n\n[a]", "*a* _b_ `c` ~~d~~", "1. a\n2. b", "- [x] a", "\\[\\<b\\>", "a  \nb", "***", "http://h/",
    "<!-- x", "<![CDATA[x", "<?php x ?>", "\\(<img src=x>\\) \\[](javascript:x)\\]", "$<b>$", "\t<b>",
]  # fmt: skip


class Seen(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "data", "formaction")]

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


RENDERER = MarkdownIt("gfm-like", {"html": True, "linkify": False})


@example("\t<b>", "text", "pixels")
@example("    <b>\n \t x", "text", "text_layer")
@example("\t\t<b>\n      1. x", "list", "pixels")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(HOSTILE + MARKDOWN), st.text("<>&[]()`*_#-=!|~\\\"' \nab1.", max_size=20)), max_size=3
    ).map("\n".join),
    st.sampled_from(LABELS),
    st.sampled_from(["pixels", "text_layer"]),
)
def test_a_documents_text_is_no_markdown_of_ours(text: str, label: str, source: str) -> None:
    html = RENDERER.render(block_markdown(block(label, text, source=source)))
    seen = Seen(html)
    ours = {"title": {"h2"}, "list": {"ul", "ol", "li", "p"}, "code": {"pre", "code"}}.get(label, set())
    assert set(seen.tags) <= {"p", "br"} | ours, html
    assert seen.attributes <= {"start"}, html


def test_what_a_model_writes_of_a_table_is_a_table() -> None:
    for text in HOSTILE + MARKDOWN:
        seen = Seen(table_markup(f"<table onclick='x'><tr><td colspan='2' style='y' onload=z>{text}</td></tr></table>{text}"))
        assert set(seen.tags) <= {"table", "tr", "td", "br"}
        assert seen.attributes <= {"colspan"}


def pages_are_inert(html: str) -> None:
    seen = Seen(html)
    assert seen.tags.count("script") == 1
    assert seen.tags.count("style") == 1
    assert not {"iframe", "object", "embed", "base", "link", "applet", "frame"} & set(seen.tags)
    assert not [name for name in seen.attributes if name.startswith("on") or name in ("srcdoc", "formaction", "ping")]
    assert not [link for link in seen.links if not link.startswith(("#", "data:image/webp;base64,"))], seen.links
    assert "default-src 'none'" in unescape(html)


def test_reports_and_differences_are_inert() -> None:
    """The same without a browser; `tests/observe` opens them in one."""
    pages, failures, changes = [], [], []
    for number, text in enumerate(HOSTILE + MARKDOWN):
        blocks = [block(label, text, 40 + 70 * i, raw=text, native_label=text, engine=text) for i, label in enumerate(LABELS[:3])]
        told: dict[str, Any] = {"flags": [text], "error_code": text, "error_stage": text, "error_message": text}
        pages.append(shown_page(number, 0, blocks, state="degraded", uri=f"/in/{text}.pdf", **told))
        failures.append(Failure(f"/in/{text}", f"{number:064x}", 0, text, text))
        changes.append(Change(0.5, f"{number:064x}", 0, f"/in/{text}", (text, text), [("gone", text), ("new", text)], (1, 1)))
    pages_are_inert(report(pages, failures, "\n".join(HOSTILE)))
    pages_are_inert(render_diff(Comparison((HOSTILE[0], HOSTILE[1]), (HOSTILE[2], HOSTILE[3]), (1, 1), 1, changes=changes)))


def test_a_cell_that_looks_like_a_formula_is_text_in_a_workbook(tmp_path: pytest.TempPathFactory) -> None:
    import zipfile

    cells = ["=1+1", "=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-1+1", "http://h/", "=HYPERLINK(1)"]
    html = "<table>" + "".join(f"<tr><td>{cell}</td></tr>" for cell in cells) + "</table>"
    store = ObjectStore(str(tmp_path))
    document = Exported("ab" * 32, "/in/a.pdf", "pdf", 1, [])
    XlsxWriter(store).write(document, [Table(0, 1, 1, 0, html, None, [])])
    with zipfile.ZipFile(io.BytesIO(store.get(f"{document.folder}.xlsx"))) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        shared = book.read("xl/sharedStrings.xml").decode()
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet
    assert "=1+1" in shared
