"""Rules of a page that pages of the corpus asked for: what is torn, what is glued, what only looks like a table or a title."""

from __future__ import annotations

from dataclasses import replace

from pipelines.layout.aligned import aligned_tables, is_contents, is_tabular
from pipelines.layout.arrange import Placed, arrange, as_text
from pipelines.layout.cues import looks_like_title
from pipelines.layout.lines import TextLine, merged, rows_of, runs_left
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
    assert len(arrange(apart, [*prose(60, 100, 2), *prose(60, 156, 4)[1:]], page())) == 2


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
    boxes = [Region("title", Box(56, 97, 560, 130), 0.5, "title"), Region("text", Box(55, 96, 560, 131), 0.8, "text")]
    assert labels(arrange(boxes, prose(60, 100, 2), page())) == ["text"]
    assert labels(arrange(boxes[:1], prose(60, 100, 2), page())) == ["title"]


def test_a_box_as_large_as_the_page_says_nothing() -> None:
    said = [Region("title", Box(5, 5, 595, 795), 0.9, "title")]
    assert labels(arrange(said, prose(60, 100, 2), page())) == ["text"]


def test_columns_of_prose_are_no_table_though_the_model_says_so() -> None:
    columns = [*prose(40, 100, 6, 40), *prose(320, 100, 6, 40)]
    assert set(labels(arrange([Region("table", Box(35, 95, 560, 190), 0.9, "table")], columns, page()))) == {"text"}


def test_a_note_in_the_foot_is_a_note() -> None:
    note = line("18 See the first chapter of the same book", 60, 745, 8)
    assert labels(arrange([Region("footer", note.box, 0.9, "footer")], [*prose(60, 100, 20), note], page()))[-1] == "footnote"


def test_a_sentence_in_the_margin_is_no_running_head() -> None:
    said = line("It was the last of the boats that came home that year.", 60, 20)
    assert labels(arrange([], [said, *prose(60, 80, 20)], page()))[0] == "text"
    assert labels(arrange([], [line("It was the last of the boats", 60, 20), *prose(60, 80, 20)], page()))[0] == "header"


def test_entries_of_a_table_of_contents_stay_apart() -> None:
    lines = [
        line(f"Harbour number {name} ....... {number}", 60, 100 + 14 * n)
        for n, (name, number) in enumerate(zip("abcd", (7, 9, 4, 12), strict=True))
    ]
    assert is_contents(rows_of(lines))  # leaders say so though numbers fall
    assert len(arrange([Region("text", Box(55, 95, 560, 160), 0.9, "text")], lines, page())) == 4


def test_where_a_paragraph_begins() -> None:
    region = [Region("text", Box(55, 95, 590, 200), 0.9, "text")]
    indented = [*prose(60, 100, 3), line("New paragraphs are indented", 75, 142), *prose(60, 156, 2)]
    assert [len(p.lines) for p in arrange(region, indented, page())] == [3, 3]
    hanging = [
        line("1. first the rope of the", 60, 100),
        line("Harbour is laid out", 75, 114),
        line("2. the knot is tied", 60, 128),
    ]
    assert [len(p.lines) for p in arrange(region, hanging, page())] == [3]  # one list
    smaller = [*prose(60, 100, 3), *(replace(found, size=7.0) for found in prose(60, 142, 3))]
    assert [len(p.lines) for p in arrange(region, smaller, page())] == [3, 3]
    headed = [line("Harbours of the North", 60, 100, bold=True), *prose(60, 114, 3)]
    assert labels(arrange(region, headed, page())) == ["title", "text"]


def test_pixels_say_less_of_type_than_a_layer_does() -> None:
    region = [Region("text", Box(55, 95, 590, 200), 0.9, "text")]
    lines = [*prose(60, 100, 3), *(replace(found, size=8.2) for found in prose(60, 142, 3))]
    assert len(arrange(region, lines, page())) == 2
    assert len(arrange(region, [replace(found, confidence=0.9) for found in lines], page())) == 1
    head = line("2.1 Market details", 60, 100, 10.5)
    assert not looks_like_title([head], 10, False)  # a layer would say that it is bold
    assert looks_like_title([replace(head, confidence=0.9)], 10, False)
    assert not looks_like_title([replace(line("2 tonnes in October", 60, 100, 10.5), confidence=0.9)], 10, False)


def test_lines_on_both_sides_of_a_picture_are_two_paragraphs() -> None:
    lines = [*prose(60, 100, 1), *prose(60, 114, 1)]
    between = Box(55, 110.5, 560, 113.5)
    assert len(arrange([Region("figure", between, 0.9, "figure")], lines, page())) == 3
    assert len(arrange([], lines, page())) == 1


def test_what_a_box_cut_off_in_a_row_joins_it() -> None:
    found = [Region("text", Box(95, 95, 590, 130), 0.9, "text")]
    (whole,) = arrange(found, [line("No", 78, 100), *prose(100, 100, 2)], page())
    assert words(whole).startswith("No The harbour")


def test_rules_above_and_below_say_how_far_an_aligned_table_reaches() -> None:
    body = table(90, 140, [["Fern", "12.5", "13"], ["Moss", "7", "8"], ["Reed", "100", "90"]])
    head = line("Plants of the harbour", 90, 112)
    rules = [Box(85, y, 330, y + 1) for y in (104, 130, 196)]
    (placed,) = [p for p in arrange([], [head, *body, *prose(60, 300)], page(rules)) if p.region.label == "table"]
    assert head in placed.lines


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
