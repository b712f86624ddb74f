"""Markdown: a document's text takes no effect as markup, tables that cross a page are one, and streaming loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipelines.assemble.document import PageText, document_markdown, join_tables
from pipelines.assemble.page import block_markdown, escape, storable, with_formulas
from pipelines.schema import Block, Box

HEAD = "<table><thead><tr><td>Plant</td><td>Lent</td></tr></thead><tbody>"


def block(label: str, content: str, **more: object) -> Block:
    return Block(label, Box(0, 0, 1, 1), content, "pixels", "e", "w", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "# not a title", "1. not a list", "- nor this", "<script>alert(1)</script>", "![x](http://a/b)", "[a](b)", "`code`",
        "*strong* _too_", "a | b | c", "&lt;b&gt;", "---", "===", "> quote", "$x$", "~~no~~", "\\*", "+ plus", "2) two",
    ],
)  # fmt: skip
def test_text_of_a_document_stays_text(text: str) -> None:
    html = MarkdownIt("commonmark").render(escape(text))
    import html as library

    assert library.unescape(html).strip() == f"<p>{text}</p>"
    for tag in ("<script", "<img", "<a ", "<em", "<code", "<h1", "<li", "<hr", "<blockquote"):
        assert tag not in html


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Zs", "Cf"]), min_size=1, max_size=40))
def test_any_one_line_survives(text: str) -> None:
    import html as library

    rendered = MarkdownIt("commonmark").render(escape(text))
    assert library.unescape(rendered).strip() == f"<p>{text}</p>"


@pytest.mark.parametrize(
    ("content", "markdown"),
    [
        ("a \\(x_1\\) costs $5 *b*", "a $x_1$ costs \\$5 \\*b\\*"),
        ("before\n\\[ a\n< b \\]\n- after", "before\n$$a \\lt b$$\n\\- after"),
        ("\\(a $ b\\)", "$a \\$ b$"),
        ("\\( \\)", ""),
        ("\\(", "\\\\("),
    ],
)
def test_formulas_of_a_model_stay_formulas(content: str, markdown: str) -> None:
    assert block_markdown(block("text", content)) == markdown


def test_formulas_of_a_text_layer_are_text() -> None:
    layer = Block("text", Box(0, 0, 1, 1), "\\(x\\)", "text_layer", "text layer", "")
    assert block_markdown(layer) == escape("\\(x\\)")


@pytest.mark.parametrize("latex", ["<script>alert(1)</script>", "![x](http://a/b)", "[a](b)", "`code`", "a\n\n# no", "</p><b>"])
def test_a_formula_does_not_become_markup(latex: str) -> None:
    html = MarkdownIt("commonmark").render(with_formulas(f"\\({latex}\\)"))
    for tag in ("<script", "<img", "<a ", "<code", "<h1", "<b>"):
        assert tag not in html


def test_items_of_a_list_keep_their_numbers_where_markdown_counts_alike() -> None:
    assert block_markdown(block("list", "150. s(t)\n151. r\na. why\n157. x*y")) == "150. s(t)\n151. r\n- a. why\n157. x\\*y"
    assert block_markdown(block("list", "1. one\n3. three\n[ ] open")) == "1. one\n- 3\\. three\n- \\[ \\] open"
    html = MarkdownIt("commonmark").render(block_markdown(block("list", "7) <b>\n8) # no")))
    assert "<b>" not in html
    assert '<ol start="7">' in html
    assert "<h1>" not in html


def test_labels() -> None:
    assert block_markdown(block("title", "A # b", level=3)) == "### A # b"
    assert block_markdown(block("list", "• one\n- two")) == "- one\n- two"
    assert block_markdown(block("code", "a ``` b")) == "````\na ``` b\n````"
    assert block_markdown(block("figure", "words in it", image="x.png")) == "![figure](x.png)"
    assert storable("a\x00b\ud800c\n") == "abc\n"


def page(number: int, *tables_and_texts: str, state: str = "ok") -> PageText:
    blocks = [
        {
            "label": "table" if text.startswith("<table") else "text",
            "content": "x",
            "html": text if text.startswith("<table") else None,
        }
        for text in tables_and_texts
    ]
    return PageText(number, state, "PAGE_TIMEOUT" if state == "failed" else None, "\n\n".join(tables_and_texts), blocks)


def rows(*names: str) -> str:
    return "".join(f"<tr><td>{name}</td><td>1</td></tr>" for name in names)


def table(*names: str) -> str:
    return f"{HEAD}{rows(*names)}</tbody></table>"


def test_a_table_over_three_pages_is_one() -> None:
    text = document_markdown(iter([page(0, "before", table("a", "b")), page(1, table("c")), page(2, table("d"), "after")]))
    assert text.count("<table>") == 1
    assert text.count("Plant") == 1
    for name in "abcd":
        assert text.count(f"<td>{name}</td>") == 1
    assert text.index("before") < text.index("<td>a") < text.index("<td>d") < text.index("after")
    assert [f"<!-- page {n} -->" in text for n in (1, 2, 3)] == [True] * 3


def test_tables_of_different_width_stay_apart() -> None:
    other = "<table><tr><td>1</td><td>2</td><td>3</td></tr></table>"
    assert join_tables(table("a"), other) is None
    assert document_markdown(iter([page(0, table("a")), page(1, other)])).count("<table>") == 2
    spanned = '<table><tr><td colspan="2">wide</td></tr></table>'
    assert join_tables(table("a"), spanned) is not None


def test_failed_and_empty_pages_leave_marks() -> None:
    text = document_markdown(iter([page(0, "one"), page(1, state="failed"), page(2)]))
    assert text == "<!-- page 1 -->\n\none\n\n<!-- page 2: not read (PAGE_TIMEOUT) -->\n\n<!-- page 3 -->\n"


@given(st.lists(st.lists(st.sampled_from(["text", "table"]), max_size=3), max_size=6))
def test_no_row_is_lost_or_doubled(shape: list[list[str]]) -> None:
    pages, names = [], []
    for number, kinds in enumerate(shape):
        contents = []
        for index, kind in enumerate(kinds):
            name = f"n{number}x{index}"
            names.append(name)
            contents.append(table(name) if kind == "table" else name)
        pages.append(page(number, *contents))
    text = document_markdown(iter(pages))
    assert [text.count(name) for name in names] == [1] * len(names)
    assert [text.index(name) for name in names] == sorted(text.index(name) for name in names)
