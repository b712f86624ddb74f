"""Regions from lines: every line in one region, columns, lists, titles, captions, furniture; a model that errs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.layout.arrange import Placed, arrange, place
from pipelines.layout.lines import TextLine, join, lines_of, rows_of
from pipelines.schema import Box, RasterPage, Region, Word
from tests.layout.pages import WIDTH, grid, line, page, prose, table


def texts(placed: list[Placed]) -> list[tuple[str, str]]:
    return [(p.region.label, " ".join(found.text for found in p.lines)[:24]) for p in placed]


def labels(placed: list[Placed]) -> list[str]:
    return [p.region.label for p in placed]


def test_two_columns_without_any_model() -> None:
    left, right = prose(40, 100, 6, 44), prose(330, 100, 6, 44)
    title = [line("Harbours of the North", 200, 50, 18, True)]
    placed = arrange([], [*right, *title, *left], page())
    assert labels(placed)[0] == "title"
    order = [found for p in placed for found in p.lines]
    assert order == [*title, *left, *right]


def test_a_line_that_a_box_cuts_stays_whole_and_is_read_once() -> None:
    lines = prose(60, 100, 4)
    regions = [Region("text", Box(150, 98, 420, 155), 0.9, "text"), Region("reference", Box(160, 98, 420, 156), 0.8, "reference")]
    placed = arrange(regions, lines, page())
    assert [found for p in placed for found in p.lines] == lines
    assert placed[0].region.box.x0 == 60


def test_a_table_that_is_prose_and_a_figure_that_is_text_are_text() -> None:
    lines = prose(60, 100, 8)
    for label in ("table", "figure"):
        placed = arrange([Region(label, Box(50, 90, 550, 220), 0.9, label)], lines, page())
        assert set(labels(placed)) == {"text"}


def test_a_figure_gives_back_the_prose_below_it_and_keeps_its_own_labels() -> None:
    drawn = Box(100, 100, 400, 300)
    inner, below = [line("0.5", 110, 310), line("1.0", 300, 310)], prose(60, 340, 4)
    placed = arrange([Region("figure", Box(60, 95, 480, 400), 0.8, "figure")], [*inner, *below], page(filled=[drawn]))
    assert labels(placed) == ["figure", "text"]
    assert list(placed[1].lines) == below
    assert placed[0].region.box.y1 <= 340


def test_a_grid_with_empty_cells_is_a_table_though_the_model_says_figure() -> None:
    box = Box(80, 100, 500, 260)
    lines = [
        line("Added cation", 90, 112),
        line("Settling rates", 310, 112),
        *(line(f"K{n}", 90, 144 + 32 * n) for n in range(3)),
    ]
    placed = arrange([Region("figure", box, 0.9, "figure")], lines, page(grid(box, 5, 2)))
    assert labels(placed) == ["table"]
    assert len(placed[0].lines) == 5


def test_heads_above_a_table_belong_to_it_and_a_caption_does_not() -> None:
    body = table(100, 200, [["Fern", "12.5", "13", "2"], ["Moss", "7", "8", "3"], ["Reed", "100", "90", "4"]])
    head = [line("Year Ended", 240, 184)]
    caption = [line("Table 4: what grew beside the harbour in those years", 100, 160)]
    placed = arrange([Region("table", Box(95, 198, 420, 245), 0.9, "table")], [*caption, *head, *body], page())
    assert labels(placed) == ["table_caption", "table"]
    assert head[0] in placed[1].lines


def test_items_become_one_list_with_what_hangs_below_them() -> None:
    rows = ["1. first the rope is laid out", "and then it is coiled", "2. the knot is tied", "3. the boat is let down"]
    lines = [line(text, 60 if text[0].isdigit() else 75, 100 + 14 * n) for n, text in enumerate(rows)]
    placed = arrange([], [*lines, *prose(60, 250)], page())
    assert labels(placed) == ["list", "text"]
    assert list(placed[0].lines) == lines


def test_an_item_whose_mark_stands_apart() -> None:
    lines = [line("a.", 60, 100), line("Use the graph to find", 82, 100), line("b.", 60, 116), line("Sketch the graph", 82, 116)]
    (placed,) = arrange([], lines, page())
    assert placed.region.label == "list"
    assert [row[0].text for row in rows_of(placed.lines)] == ["a.", "b."]


def test_furniture_and_what_is_none() -> None:
    head, foot = line("A Short History of Harbours", 60, 20), line("17", 300, 775)
    placed = arrange([], [head, *prose(60, 100, 20), foot], page())
    assert texts(placed)[0] == ("header", "A Short History of Harbo")
    assert texts(placed)[-1] == ("page_number", "17")
    sentence = line("It was the last of the boats that came home that year.", 60, 40)
    assert "header" not in labels(arrange([], [sentence, *prose(60, 54, 20)], page()))
    note = line("18 See the first chapter of the same book for a longer account.", 60, 745, 8)
    said = [Region("footer", note.box, 0.9, "footer")]
    assert labels(arrange(said, [*prose(60, 100, 20), note], page()))[-1] == "footnote"


def test_a_number_below_all_else_is_a_page_number_even_in_the_middle_of_a_page() -> None:
    placed = arrange([], [*prose(60, 100, 6), line("62", 290, 260)], page())
    assert texts(placed)[-1] == ("page_number", "62")


@pytest.mark.parametrize(
    ("text", "size", "bold", "label"),
    [
        ("2.1.1 Pretraining data", 10, True, "title"),
        ("Harbours", 16, False, "title"),
        ("This sentence is printed bold to warn the reader of it.", 10, True, "text"),
        ("Figure 3: boats by year", 10, False, "figure_caption"),
        ("Tabelle 12 Boote nach Jahren", 10, False, "table_caption"),
        ("2019", 16, True, "text"),
    ],
)
def test_what_one_line_is(text: str, size: float, bold: bool, label: str) -> None:
    placed = arrange([], [*prose(60, 300, 8), line(text, 60, 250, size, bold)], page())
    assert labels(placed)[0] == label


def test_lines_are_joined_over_a_change_of_font_and_cut_at_a_gutter() -> None:
    assert len(join([line("Record your", 60, 100), line("observations", 118, 101), line("elsewhere", 400, 100)])) == 2
    words = [Word("left", Box(40, 100, 60, 110), 0, 10), Word("right", Box(320, 100, 345, 110), 0, 10)]
    assert [found.text for found in lines_of(RasterPage(page().pixels, 72, WIDTH, 800, tuple(words)))] == ["left", "right"]


def test_lines_printed_over_each_other_are_rows_of_their_own() -> None:
    assert len(rows_of([line("one text over", 60, 100), line("another text", 65, 102)])) == 2


def test_place_keeps_arranged_regions_and_loses_no_line() -> None:
    lines = prose(60, 100, 4)
    stray = line("a stray line", 60, 400)
    placed = place([Region("text", Box(50, 95, 560, 160), 0.9)], [*lines, stray])
    assert [list(p.lines) for p in placed] == [lines, [stray]]


corner = st.tuples(st.integers(10, 500), st.integers(10, 780))
random_line = st.builds(
    lambda at, text, size: line(text, at[0], at[1], size),
    corner,
    st.sampled_from(["Fern", "1. item of a list", "12.5", "Figure 2", "a longer line of text that goes on", "17"]),
    st.sampled_from([8.0, 10.0, 16.0]),
)
random_region = st.builds(
    lambda at, w, h, label, score: Region(label, Box(at[0], at[1], at[0] + w, at[1] + h), score, label),
    corner,
    st.integers(5, 500),
    st.integers(5, 400),
    st.sampled_from(["text", "title", "table", "figure", "header", "footer", "formula", "reference", "table_caption"]),
    st.floats(0.4, 1),
)


@settings(deadline=None, max_examples=60)  # a loaded machine is slow
@given(st.lists(random_region, max_size=8), st.lists(random_line, max_size=25, unique_by=lambda found: found.box))
def test_every_line_is_in_exactly_one_region(regions: list[Region], lines: list[TextLine]) -> None:
    placed = arrange(regions, lines, page())
    found = sorted((word for p in placed for own in p.lines for word in own.words), key=str)
    assert found == sorted((word for own in lines for word in own.words), key=str)
    assert placed == arrange(list(reversed(regions)), lines, page()) or len({(r.score, r.box) for r in regions}) < len(regions)
