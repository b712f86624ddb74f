"""Tables from where words stand, and when the structure model is not believed."""

from __future__ import annotations

from jobs.scoring.markup import tables
from pipelines.recognize.grid import Placed, contradictions, grid_html, runs
from pipelines.recognize.paragraphs import content
from tests.layout.pages import line, prose, table


def words(rows: list[list[str]], column: float = 90) -> list[Placed]:
    return [word for found in table(0, 0, rows, column) for word in found.words]


def cells(markup: str) -> list[list[str]]:
    (found,) = tables(markup)
    return [[cell.text for cell in row] for row in found.rows]


ROWS = [["Plant", "1994", "1995"], ["Fern", "12.5", "13"], ["Moss", "", "8"], ["Reed of a kind", "100", "<9>"]]


def test_rows_and_columns_come_back() -> None:
    assert cells(grid_html(words(ROWS))) == ROWS
    assert "&lt;9&gt;" in grid_html(words(ROWS))
    assert grid_html([]) == ""


def test_a_head_spans_the_columns_that_it_is_centred_above() -> None:
    body = words([["", "1994", "1995"], ["Fern", "12", "13"], ["Moss", "7", "8"]])
    head = list(line("Year", 135, -16).words)
    (found,) = tables(grid_html([*head, *body]))
    assert [(cell.text, cell.colspan) for cell in found.rows[0]] == [("", 1), ("Year", 2)]


def test_figures_that_touch_are_dealt_to_their_columns() -> None:
    rows = [["Fern", "0.40", "0.20"], ["Moss", "0.10", "0.30"], ["Reed", "0.70", "0.90"]] * 3
    close = words(rows, 26)
    assert cells(grid_html(close)) == rows


def test_a_structure_that_merges_figures_contradicts_the_words() -> None:
    found = runs(words(ROWS))
    assert contradictions([[run] for run in found]) == 0.0
    merged = [[run] for run in found[:4]] + [found[4:6]] + [[run] for run in found[6:]]
    assert contradictions(merged) > 0.05


def test_content_by_label() -> None:
    items = [line("1. one that is", 60, 100), line("longer", 75, 114), line("2. two", 60, 128)]
    assert content("list", items) == "1. one that is longer\n2. two"
    assert content("text", prose(60, 100, 2)).endswith("tally of the day to write")
