"""A document's text as HTML: it reads the same, formulas are set, and no input whatever makes another tag or attribute."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.observe import rendered
from pipelines.observe.rendered import rendered_block
from tests.observe.test_browser import HOSTILE


def row(content: str, label: str = "text", source: str = "pixels", html: str | None = None) -> dict[str, Any]:
    return {"label": label, "content": content, "html": html, "source": source, "engine": "e", "level": 2, "image": None}


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name) for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.add("comment")


ALLOWED = {(tag, name) for tag, names in rendered._ATTRIBUTES.items() for name in names}


def harmless(html: str) -> Tags:
    found = Tags(html)
    assert found.tags <= rendered._TEXT_TAGS
    assert found.attributes <= ALLOWED
    return found


def test_formulas_are_set_and_prices_are_not() -> None:
    html = str(rendered_block(row(r"It costs $5 or $6 \(x_{i} < 5\) and \[\frac{a}{b} \lt \sum_{n} \text{if }y\]")))
    found = harmless(html)
    assert html.count("<math") == 2
    assert {"mfrac", "msub", "mtext"} <= found.tags
    assert "It costs $5 or $6" in found.text
    assert "\\" not in found.text
    cells = r"<table><tr><td>\(a &lt; b\) and \(</td><td>c\)</td></tr></table>"
    html = str(rendered_block(row("t", html=cells)))
    assert html.count("<math") == 1
    assert harmless(html).text == r"a<b and \(c\)"
    assert "<math" not in str(rendered_block(row(r"from a text layer \(x\)", source="text_layer")))


@pytest.mark.parametrize("latex", [r"\frac", r"\begin{matrix", "{{{", r"x^^^", "a" * 2500, r"\left( x"])
def test_what_is_no_latex_is_shown_as_it_is(latex: str) -> None:
    found = harmless(str(rendered_block(row(rf"\[{latex}\]", "formula"))))
    assert "math" not in found.tags
    assert latex in found.text


@pytest.mark.parametrize("latex", [
    r"\text{<script>window.hacked=1</script>}", r"\href{javascript:window.hacked=1}{x}", r"\style{color:red}{x}",
    r"\class{a}{x} \cssId{b}{y}", r"</math><img src=x onerror=1>", r"\text{\u003cscript\u003e}", r"\unicode{60}script\unicode",
])  # fmt: skip
def test_hostile_formulas(latex: str) -> None:
    harmless(str(rendered_block(row(rf"\[{latex}\] and \({latex}\)"))))
    harmless(str(rendered.clean(rendered._formula(latex, {"display_mode": True}))))  # without what assemble does before


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("label", ["text", "title", "list", "code", "formula"])
def test_hostile_text_in_every_label(text: str, label: str) -> None:
    for source in ("pixels", "text_layer"):
        found = harmless(str(rendered_block(row(text, label, source))))
        assert "".join(found.text.split()).replace("\ufeff", "") == "".join(text.split()).replace("\ufeff", "")
    harmless(str(rendered_block(row("t", "table", html=f"<table><tr><td onclick='x' style='y'>{text}</td></tr></table>{text}"))))


@settings(deadline=None)
@given(st.text(st.sampled_from("<>/\\$`*_[](){}&;#!|~^\"'= abfracleftbeginmatrix\n"), max_size=80))
def test_any_text_is_harmless(text: str) -> None:
    for source in ("pixels", "text_layer"):
        harmless(str(rendered_block(row(text, source=source))))
    harmless(str(rendered_block(row("t", html=text))))
    harmless(str(rendered.clean(rendered._formula(text, {"display_mode": False}))))


def test_what_is_cut_is_counted() -> None:
    html = str(rendered_block(row("a" * 25_000)))
    assert "and 5000 more characters" in html
    assert len(html) < 21_000
