"""What a model may say, however wrong: tables, loops, delimiters, places."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.recognize.charts import chart_table
from pipelines.recognize.delimiters import dollar_math
from pipelines.recognize.markup import table_markup
from pipelines.recognize.otsl import otsl_to_html
from pipelines.recognize.repetition import TABLE_LEAST, cut_repetition
from pipelines.recognize.spotting import spotted

TAGS = ["<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>"]
OTSL = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=5)), max_size=40).map("".join)


def rows(html: str) -> list[list[str]]:
    return [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", html, re.S)]


@pytest.mark.parametrize(
    ("otsl", "html"),
    [
        (
            "<fcel>a<lcel><fcel>b<nl><ucel><xcel><ecel><nl>",
            '<tr><td rowspan="2" colspan="2">a</td><td>b</td></tr><tr><td></td></tr>',
        ),
        ("<fcel>a<fcel>b<nl><fcel>c<nl>", "<tr><td>a</td><td>b</td></tr><tr><td>c</td><td></td></tr>"),
        ("<fcel>a<lcel><nl><ucel><fcel>x<nl>", '<tr><td rowspan="2" colspan="2">a</td></tr><tr><td>x</td></tr>'),
        ('<fcel>"a" & <b><nl>', "<tr><td>&quot;a&quot; &amp; &lt;b&gt;</td></tr>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strict", [False, True])
def test_tables(otsl: str, html: str, strict: bool) -> None:
    assert otsl_to_html(otsl, strict) == f"<table>{html}</table>"


@pytest.mark.parametrize(
    ("otsl", "ours", "official"),
    [
        ("<fcel><fcel>b<nl>", [["", "b"]], [["&lt;fcel&gt;", "b"]]),
        ("<fcel><nl>", [[""]], [["&lt;nl&gt;"]]),
        ("<ecel>x<nl><fcel>y<nl>", [["x"], ["y"]], [[""], ["y"]]),
        ("<fcel><nl><lcel>", [[""], [""]], [[""], [""]]),  # the official code raises
    ],
)
def test_mistakes_of_the_official_converter(otsl: str, ours: list[list[str]], official: list[list[str]]) -> None:
    assert rows(otsl_to_html(otsl)) == ours
    assert rows(otsl_to_html(otsl, strict=True)) == official


@pytest.mark.parametrize("said", ["", "plain", "<nl>", "<nl><nl>", "<lcel><ucel><nl>"])
def test_what_has_no_cell_is_no_table(said: str) -> None:
    assert otsl_to_html(said) == otsl_to_html(said, strict=True) == ""


@settings(max_examples=300, deadline=None, derandomize=True)
@given(OTSL, st.booleans())
def test_no_answer_breaks_a_table(said: str, strict: bool) -> None:
    html = otsl_to_html(said, strict)
    assert html == "" or (html.startswith("<table><tr>") and html.endswith("</tr></table>"))
    assert html.count("<tr>") == html.count("</tr>")
    assert html.count("<td") == html.count("</td>")


def test_no_text_of_a_filled_cell_is_lost() -> None:
    said = "".join(f"<fcel>r{r}c{c}" + ("<nl>" if c == 2 + r % 2 else "") for r in range(9) for c in range(3 + r % 2))
    assert [cell for row in rows(otsl_to_html(said)) for cell in row if cell] == re.findall(r"r\dc\d", said)


def test_a_loop_of_tags_does_not_fill_memory() -> None:
    assert otsl_to_html("<fcel>a" * 2000 + "<nl>" + "<fcel>b<nl>" * 2000) == ""


@pytest.mark.parametrize(
    ("said", "html"),
    [
        ("<table><tr><td colspan=2 onclick='x'>a<td>b", '<table><tr><td colspan="2">a<td>b</td></td></tr></table>'),
        ("<table><tr><td><script>alert(1)</script><img src=x>1 < 2 &amp; 3</td></tr></table>",
         "<table><tr><td>1 &lt; 2 &amp; 3</td></tr></table>"),
        ("<table><tr><td>H<sub>2</sub>O<br>x</td></tr></table></div>", "<table><tr><td>H<sub>2</sub>O<br>x</td></tr></table>"),
        ('<table><tr><td rowspan="9999999999" colspan="-1">a</td></tr></table>', "<table><tr><td>a</td></tr></table>"),
    ],
)  # fmt: skip
def test_tables_that_the_model_wrote_as_html(said: str, html: str) -> None:
    assert table_markup(said) == html


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.sampled_from(["<table>", "<td", "</td>", "<script>", "</", "<!--", "<b onx=1>", "&lt;", ">"]),
                          st.text(max_size=4)), max_size=20).map("".join))  # fmt: skip
def test_no_html_gets_through(said: str) -> None:
    tags = re.findall(r"<[^>]*>", table_markup(said))
    assert all(
        re.fullmatch(r"</?(table|thead|tbody|tfoot|tr|td|th|caption|sup|sub|br)( (row|col)span=\"\d+\")*>", tag) for tag in tags
    )


@pytest.mark.parametrize(
    ("said", "ours", "official"),
    [
        ("a" * 49, "a" * 49, "a" * 49),
        ("a" * 50, "a", "a"),
        ("ab" * 30, "ab", "ab"),
        ("ab" * 60, "ab" * 12, ""),
        ("abcdefg" * 15, "abcdefg" * 3, ""),
        ("\n".join(["line"] * 12), "line", "line"),
        ("\n".join(["a line"] * 9), "\n".join(["a line"] * 9), "\n".join(["a line"] * 9)),
    ],
)
def test_loops(said: str, ours: str, official: str) -> None:
    assert cut_repetition(said, strict=True) == official
    found = cut_repetition(said)
    assert found == ours
    assert said.startswith(found)


def test_tables_are_looked_at_from_5000_characters_only() -> None:
    said = "<fcel>1<nl>" * 100
    assert cut_repetition(said, TABLE_LEAST) == said
    assert len(cut_repetition(said * 10, TABLE_LEAST)) < 5000


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=30), st.integers(1, 60), st.text(max_size=30), st.booleans())
def test_what_is_cut_off_repeats(before: str, times: int, unit: str, strict: bool) -> None:
    said = before + unit * times
    found = cut_repetition(said, strict=strict)
    assert found == said or found.strip() in said
    assert strict or not said.strip() or found.strip()


@pytest.mark.parametrize(
    ("said", "label", "ours", "official"),
    [
        ("a \\(x\\) costs $5", "text", "a  $ x $ costs \\$5", "a  $ x $ costs 5"),
        ("\\[ x \\]", "text", " $$  x  $$ ", " $$  x  $$ "),
        ("\\((1)\\)", "formula_number", "  (1) ", "  (1) "),
        ("only $5", "text", "only $5", "only $5"),
        ("\\[\\[a\\]\\]", "text", " $$ a $$ ", " $$ a $$ "),
    ],
)
def test_delimiters(said: str, label: str, ours: str, official: str) -> None:
    assert dollar_math(said, label) == ours
    assert dollar_math(said, label, strict=True) == official


def test_places_of_text() -> None:
    numbers = "".join(f"<|LOC_{n}|>" for n in (0, 0, 500, 0, 500, 1000, 0, 1000))
    marked = spotted(f"<|TEXT_START|> word <|TEXT_END|><|LOC_BEGIN|>{numbers}<|LOC_END|>", 200, 100)
    assert marked == spotted(f" word {numbers}", 200, 100)
    assert marked.texts == ("word",)
    assert marked.polys == (((0.0, 0.0), (100.0, 0.0), (100.0, 100.0), (0.0, 100.0)),)


@pytest.mark.parametrize(("digits", "found"), [(10, 1), (300, 1), (301, 0), (5000, 0)])
def test_a_place_of_many_digits_is_still_a_place(digits: int, found: int) -> None:
    """As official, up to what a float holds: from about 310 digits on the official code raises."""
    places = spotted(f"word{'<|LOC_500|>' * 7}<|LOC_{'9' * digits}|>", 200, 10_000)
    assert len(places.texts) == found
    if found:
        assert places.texts == ("word",)
        assert places.polys[0][:3] == ((100.0, 5000.0),) * 3
        assert math.isfinite(places.polys[0][3][1])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.integers(0, 10**12))
def test_no_answer_breaks_places_or_charts(said: str, number: int) -> None:
    assert len(spotted(f"{said}<|LOC_{number}|>" * 9, 100, 100).texts) <= 1
    assert "<script" not in chart_table(f"{said}|<script>\n{said}")
