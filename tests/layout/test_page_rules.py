"""Rules of a page that pages of the corpus asked for: what is torn, what is glued, what only looks like a table or a title."""

from __future__ import annotations

from dataclasses import replace

from pipelines.layout.aligned import aligned_tables, is_tabular
from pipelines.layout.arrange import Placed, arrange, as_text
from pipelines.layout.cues import looks_like_title
from pipelines.layout.lines import TextLine, merged, runs_left
from pipelines.schema import Box, Region
from tests.layout.pages import grid, line, page, prose, table

ITEMS = [["•", "Weekly reports"], ["•", "A breakdown of costs"], ["•", "Applicable taxes"]]


def labels(placed: list[Placed]) -> list[str]:
    return [p.region.label for p in placed]


def words(placed: Placed) -> str:
    return " ".join(found.text for found in placed.lines)


def upright(text: str, x: float, y: float) -> TextLine:
    """A line that runs up the page."""
    box = Box(x, y, x + 10, y + 5 * len(text))
    return TextLine(((text, box),), box, 10)


def test_short_items_below_each_other_are_a_list_and_no_table() -> None:
    for marks in ("•••", ("1.", "2.", "3."), ("a)", "b)", "c)")):
        rows = [[mark, text] for mark, (_, text) in zip(marks, ITEMS, strict=True)]
        lines = table(60, 100, rows, 24, 14)
        assert not is_tabular(lines)
        assert aligned_tables(lines, []) == []
    assert labels(arrange([], [*table(60, 100, ITEMS, 24, 14), *prose(60, 300)], page())) == ["list", "text"]
    assert is_tabular(table(60, 100, [["1.", "12.5"], ["2.", "13"], ["3.", "8"]], 60))  # numbers beside numbers are no items
    assert is_tabular(table(60, 100, [["1.", "Fern", "12"], ["2.", "Moss", "7"], ["3.", "Reed", "100"]], 60))


def test_a_bullet_begins_no_title() -> None:
    assert looks_like_title([line("Stores complex songs", 60, 100, 16)], 10, False)
    assert not looks_like_title([line("• Stores complex songs", 60, 100, 16)], 10, False)


def test_a_paragraph_that_two_boxes_share_is_one() -> None:
    lines = prose(60, 100, 6)
    boxes = [Region("text", Box(55, 98, 560, 125), 0.9, "text"), Region("text", Box(55, 127, 560, 185), 0.9, "text")]
    (whole,) = arrange(boxes, lines, page())
    assert list(whole.lines) == lines
    ended = [replace(lines[1], words=(*lines[1].words[:-1], ("done.", lines[1].words[-1][1])))]
    assert len(arrange(boxes, [lines[0], *ended, *lines[2:]], page())) == 2
    apart = [Region("text", Box(55, 98, 560, 125), 0.9, "text"), Region("text", Box(55, 168, 560, 225), 0.9, "text")]
    assert len(arrange(apart, [*prose(60, 100, 2), *prose(60, 170, 2)], page())) == 2


def test_one_box_over_two_columns_is_read_column_by_column() -> None:
    left, right = prose(40, 100, 6, 40), prose(320, 100, 6, 40)
    found = [Region("text", Box(35, 95, 560, 190), 0.9, "text")]
    placed = arrange(found, [found for pair in zip(left, right, strict=True) for found in pair], page())
    assert [found for p in placed for found in p.lines] == [*left, *right]


def test_a_small_table_that_the_model_takes_for_a_figure_may_have_rules() -> None:
    lines = table(100, 206, [["Key", "Value", "Share"], ["census", "995", "74%"], ["turbine", "353", "25%"]])
    rules = [Box(95, y, 340, y + 2) for y in (200, 220, 256)]
    figure = [Region("figure", Box(95, 198, 345, 260), 0.8, "figure")]
    assert labels(arrange(figure, lines, page(rules))) == ["table"]
    drawn = Box(150, 225, 300, 255)
    assert "table" not in labels(arrange(figure, lines, page([*rules, drawn])))


def test_what_is_stamped_up_the_margin_is_no_text_of_the_page() -> None:
    stamp = upright("arXiv:2103.15348v2 [cs.CV] 21 Jun 2021", 15, 250)
    placed = arrange([], [stamp, *prose(60, 100, 20)], page())
    assert labels(placed) == ["header", "text"]
    inner = upright("arXiv:2103.15348v2 [cs.CV] 21 Jun 2021", 300, 420)
    assert "header" not in labels(arrange([], [inner, *prose(60, 100, 20)], page()))


def test_a_row_with_a_page_number_is_furniture_though_it_stands_far_in() -> None:
    number, head = line("2", 60, 100), line("HARBOUR MANUAL (VERSION 3)", 200, 100)
    placed = arrange([], [number, head, *prose(60, 126, 20)], page())
    assert labels(placed) == ["page_number", "header", "text"]
    assert labels(arrange([], [head, *prose(60, 126, 20)], page()))[0] not in ("header", "page_number")
    far = [line("2", 60, 200), line("HARBOUR MANUAL (VERSION 3)", 200, 200)]
    assert "header" not in labels(arrange([], [*far, *prose(60, 226, 20)], page()))
    below = [line("17", 300, 690), line("Confidential draft", 60, 690)]
    assert labels(arrange([], [*prose(60, 100, 20), *below], page()))[1:] == ["footer", "page_number"]


def test_notes_of_one_column_come_after_the_text_of_both() -> None:
    left, right = prose(40, 100, 30, 40), prose(320, 100, 40, 40)
    note = line("1 See the first chapter of this book", 40, 640, 7)
    placed = arrange([], [*left, note, *right], page())
    assert placed[-1].region.label == "footnote"
    assert [found for p in placed for found in p.lines] == [*left, *right, note]


def test_two_boxes_of_nearly_one_place_are_the_surer_one() -> None:
    lines = prose(60, 100, 3)
    boxes = [Region("figure", Box(55, 96, 560, 142), 0.5, "figure"), Region("title", Box(56, 97, 560, 142), 0.8, "title")]
    assert "figure" not in labels(arrange(boxes, lines, page(filled=[Box(300, 100, 310, 140)])))


def test_several_ruled_tables_that_the_model_took_for_one() -> None:
    upper, lower = Box(80, 100, 500, 200), Box(80, 260, 500, 360)
    cells = [line(f"{r}{c}", 90 + 140 * c, top + 8 + 25 * r) for top in (100, 260) for r in range(4) for c in range(3)]
    found = [Region("table", Box(78, 98, 502, 362), 0.9, "table")]
    assert labels(arrange(found, cells, page([*grid(upper, 4, 3), *grid(lower, 4, 3)]))) == ["table", "table"]


def test_a_formula_of_words_is_text() -> None:
    said = [Region("formula", Box(55, 98, 560, 115), 0.9, "equation")]
    assert labels(arrange(said, [line("x = y + 2", 60, 100)], page())) == ["formula"]
    assert labels(arrange(said, prose(60, 100, 1), page())) == ["text"]


def test_what_is_no_table_after_all_is_paragraphs_and_lists_again() -> None:
    lines = [*prose(60, 100, 3), *table(60, 200, ITEMS, 24, 14), line("Harbours", 60, 260, 18)]
    placed = as_text(lines, 10)
    assert labels(placed) == ["text", "list", "title"]
    assert sorted(str(found.words) for p in placed for found in p.lines) == sorted(str(found.words) for found in lines)


def test_a_script_that_runs_to_the_left_is_read_so() -> None:
    boxes = [Box(500 - 60 * n, 100, 550 - 60 * n, 110) for n in range(3)]
    spoken = ["يولد", "جميع", "الناس"]
    row = merged([TextLine(((text, box),), box, 10) for text, box in zip(spoken, boxes, strict=True)])
    assert row.text.split() == spoken
    latin = merged([TextLine(((text, box),), box, 10) for text, box in zip("abc", boxes, strict=True)])
    assert latin.text.split() == ["c", "b", "a"]
    assert runs_left("העולם")
    assert not runs_left("12.5")
    assert not runs_left("Harbour עולם report")
