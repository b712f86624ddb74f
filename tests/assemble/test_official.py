"""The official form: what differs from it on purpose, with and without `strict_parity`, and content that no model should give."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.assemble.official.document import one_page, one_result, restructured
from pipelines.assemble.official.markdown import page_markdown
from pipelines.assemble.official.page import OfficialBlock, OfficialPage, block_records, official_page, pruned_result
from pipelines.assemble.official.tables import joined_table
from pipelines.assemble.official.titles import Title, numbering, title_levels
from pipelines.config import PaddleOcrVlConfig, load
from pipelines.layout.labels import OFFICIAL_LABELS, own_label
from pipelines.schema import Box, Region

DEFAULTS = load().paddleocr_vl
CELL = "style='text-align: center; word-wrap: break-word;'"


def options(**given: object) -> PaddleOcrVlConfig:
    return DEFAULTS.model_copy(update=given)


def page(*blocks: OfficialBlock) -> OfficialPage:
    return OfficialPage(1000, 1400, list(blocks), figures={b.image: b.box for b in blocks if b.image})


def block(label: str, content: str = "", box: tuple[int, int, int, int] = (0, 0, 500, 100), **more: object) -> OfficialBlock:
    return OfficialBlock(label, box, content, **more)  # type: ignore[arg-type]


def both(found: OfficialPage, **given: object) -> tuple[str, str]:
    """Markdown as it is by default, and in strict parity."""
    return tuple(page_markdown(found, options(strict_parity=strict, **given)) for strict in (False, True))  # type: ignore[return-value]


def region(label: str, *box: float) -> Region:
    return Region(own_label(label), Box(*box), 0.9, label)


# -- declared differences ------------------------------------------------------------------------------------------------


def test_blocks_without_content_leave_no_blank_lines() -> None:
    found = page(block("text", "a"), block("text", ""), block("text", "b"))
    assert both(found) == ("a\n\nb", "a\n\n\n\nb")


def test_every_cell_is_styled() -> None:
    html = '<table><tr><td colspan="2">a</td><td>b</td></tr></table>'
    ours, strict = both(page(block("table", html)))
    assert ours.count(CELL) == 2
    assert strict.count(CELL) == 1
    assert ours.replace(f"<td {CELL} colspan", "<td colspan") == strict


def test_cells_of_charts_are_escaped() -> None:
    ours, strict = both(page(block("chart", "a|<b>\n1|2")), use_chart_recognition=True)
    assert "&lt;b&gt;" in ours
    assert "<b>" in strict


def test_a_picture_without_an_image_is_nothing() -> None:
    ours, strict = both(page(block("image")))
    assert (ours, strict) == ("", '<div style="text-align: center;"></div>\n')


def test_the_quotation_mark_too_many() -> None:
    regions = [region("table", 0, 0, 400, 300), region("image", 50, 50, 150, 150)]
    for strict, tag in ((False, 'alt="Image" />'), (True, 'alt="Image"" />')):
        found = official_page(regions, {0: "<fcel>[F2]<nl>"}, 600, 800, options(strict_parity=strict))
        assert [b.label for b in found.blocks] == ["table"]
        assert f'<img src="imgs/img_in_image_box_50_50_150_150.jpg" {tag}' in found.blocks[0].content


def test_groups_are_block_ids_even_after_a_figure_went_into_a_table() -> None:
    regions = [region("table", 0, 0, 400, 300), region("image", 50, 50, 150, 150), region("text", 0, 400, 300, 500)]
    answers = {0: "<fcel>[F2]<nl>", 2: "t"}
    ids = {}
    for strict in (False, True):
        given = options(strict_parity=strict)
        records = block_records(official_page(regions, answers, 600, 800, given), given)
        ids[strict] = [(record["block_id"], record["group_id"]) for record in records]
    assert ids == {False: [(0, 0), (1, 1)], True: [(0, 0), (1, 2)]}


def test_a_figure_that_became_no_block_is_still_shown_in_its_table() -> None:
    regions = [region("table", 0, 0, 400, 300), region("seal", 50, 50, 150, 150), region("seal", 50, 50, 149, 150)]
    for strict, left in ((False, 0), (True, 1)):
        found = official_page(regions, {0: "<fcel>[F2]<fcel>[F3]<nl>"}, 600, 800, options(strict_parity=strict))
        assert found.blocks[0].content.count("[F") == left


def test_a_table_without_rows_swallows_nothing() -> None:
    assert joined_table("no rows", "none either") is None
    assert joined_table("no rows", "none either", strict=True) == "no rows"
    assert joined_table("no rows", "<table><tr><td>a</td></tr></table>", strict=True) is None


def test_pictures_of_two_pages_do_not_meet_when_pages_become_one() -> None:
    pages = [page(block("image", image="imgs/a.jpg"), block("table", '<img src="imgs/a.jpg" />')) for _ in range(2)]
    ours = one_page(pages, options())
    assert list(ours.figures) == ["imgs/page_0_a.jpg", "imgs/page_1_a.jpg"]
    assert 'src="imgs/page_1_a.jpg"' in ours.blocks[3].content
    assert list(one_page(pages, options(strict_parity=True)).figures) == ["imgs/a.jpg"]


# -- matched ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "markdown"),
    [
        ("1.2Hello", "### 1.2 Hello"), ("3.1.2 Foo.", "#### 3.1.2 Foo"), ("Intro", "## Intro"),
        ("Results vs. base.", "### Results vs. base"), ("2023年报告", "## 2023 年报告"), ("IV. Methods", "### IV. Methods"),
        ("一、概述", "## 一、 概述"),
    ],
)  # fmt: skip
def test_titles(title: str, markdown: str) -> None:
    assert both(page(block("paragraph_title", title))) == (markdown, markdown)
    levelled = page(block("paragraph_title", title, title_level=3))
    assert page_markdown(levelled, options()) == f"#### {title}"


def test_formula_numbers_are_shown_when_asked() -> None:
    found = page(block("display_formula", "$$ x $$"), block("formula_number", "(1)"))
    assert page_markdown(found, options(), numbers=False) == "$$ x $$"
    assert page_markdown(found, options(show_formula_number=True)) == "$$ x  \\tag*{(1)}$$"


def test_ignored_labels_are_in_the_json_and_not_in_the_markdown() -> None:
    found = page(block("header", "h"), block("text", "t"), block("number", "7"))
    assert page_markdown(found, options()) == "t"
    assert [record["block_order"] for record in block_records(found, options())] == [None, 1, None]
    assert page_markdown(found, options(markdown_ignore_labels=[])) == "h\n\nt\n\n7"


def test_a_table_over_three_pages_is_one_and_the_others_name_it() -> None:
    html = "<table><tr><td>h</td></tr><tr><td>{}</td></tr></table>"
    pages = [page(block("table", html.format(n))) for n in range(3)]
    again = restructured(pages, options())
    assert [b.content for p in again for b in p.blocks] == [
        "<table><tr><td>h</td></tr><tr><td>0</td></tr><tr><td>1</td></tr><tr><td>2</td></tr></table>", "", "",
    ]  # fmt: skip
    assert [b.global_group for p in again for b in p.blocks] == [0, 0, 0]
    assert [b.content for p in pages for b in p.blocks] == [html.format(n) for n in range(3)]  # those given are not changed
    whole = one_result(again, options())
    assert (whole["page_count"], len(whole["layout_det_res"])) == (3, 3)
    assert [record["global_group_id"] for record in whole["parsing_res_list"]] == [0, 0, 0]


# -- robustness ------------------------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["1. a", "IV. b", "第二章", "Abstract x", "<table>", "[F2]", "\\(x\\)", "$$", "a|b\n1|2", "References\nx"]),
)
TAGS = ["<table>", "</table>", "<tr>", "</tr>", "<td>", "<td colspan=x>", "<td rowspan=-3 colspan=999999999>", "Q", "</td>"]
HTML = st.lists(st.sampled_from(TAGS), max_size=20).map("".join)
BOX = st.tuples(*[st.integers(-5, 1500)] * 4)
BLOCK = st.builds(block, st.sampled_from([*OFFICIAL_LABELS, "ocr", "spotting", "unheard of"]), st.one_of(TEXT, HTML), BOX)
PAGES = st.lists(st.lists(BLOCK, max_size=5), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PAGES, st.booleans(), st.booleans())
def test_no_document_raises(blocks: list[list[OfficialBlock]], strict: bool, formatted: bool) -> None:
    given = options(strict_parity=strict, format_block_content=formatted, use_chart_recognition=strict)
    pages = restructured([page(*some) for some in blocks], given)
    assert len(one_result(pages, given)["parsing_res_list"]) == sum(map(len, blocks))
    for found in [one_page(pages, given), *pages]:
        for pretty in (False, True):
            page_markdown(found, given, pretty, numbers=True)
        assert pruned_result(found, given)["parsing_res_list"] == block_records(found, given)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(HTML, HTML, st.booleans())
def test_no_tables_raise(above: str, below: str, strict: bool) -> None:
    joined = joined_table(above, below, strict)
    assert joined is None or joined.count("Q") <= above.count("Q") + below.count("Q")


def test_tables_nested_by_a_loop() -> None:
    deep = "<table><tr><td>" * 3000 + "Q"
    assert joined_table(deep, deep) is None
    assert joined_table("<table><tr><td>Q</td></tr></table>", deep) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.builds(Title, TEXT, BOX), max_size=9))
def test_no_titles_raise(titles: list[Title]) -> None:
    levels = title_levels(titles)
    assert len(levels) == len(titles)
    assert all((level == 1) or numbering(t.content)[0] or level <= 4 for t, level in zip(titles, levels, strict=True))
