"""What of a structure model's answer is believed; a table that is none; rules that were typed."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.scoring.markup import tables
from pipelines.config import load
from pipelines.recognize.embedded import EmbeddedReader
from pipelines.recognize.grid import contradictions, grid_html, runs
from pipelines.recognize.tables import TableReader, without_rules
from pipelines.schema import Box, Pixels, RasterPage, Region, Word
from tests.layout.pages import table

CROP: Pixels = np.full((100, 300, 3), 255, np.uint8)
ROWS = [["Plant", "1994"], ["Fern", "12"], ["Moss", "7"]]
WHOLE = ["<table>", *["<tr>", "<td></td>", "<td></td>", "</tr>"] * 3, "</table>"]
CELLS = [[x, y, x + 90, y, x + 90, y + 16, x, y + 16] for y in (0, 16, 32) for x in (0, 90)]


def read(structure: list[str], cells: list[list[float]], rows: list[list[str]] = ROWS) -> tuple[str, str | None]:
    """What the reader makes of a model's answer, whose places are in a square of 488 pixels."""
    reader = TableReader(1)
    placed = [[value * 488 / 300 for value in cell] for cell in cells]
    shrunk = [[v * 300 / 488 for v in cell] for cell in placed]
    scaled = [[v * (1 if n % 2 == 0 else 100 / 300) for n, v in enumerate(cell)] for cell in shrunk]
    reader.__dict__["_model"] = lambda crop: (structure, np.asarray(scaled), 0.0)
    return reader.read(CROP, [word for found in table(2, 2, rows, 90) for word in found.words])


def cells_of(markup: str) -> list[list[str]]:
    (found,) = tables(markup)
    return [[cell.text for cell in row] for row in found.rows]


def test_a_whole_structure_is_believed() -> None:
    html, rung = read(WHOLE, CELLS)
    assert rung is None
    assert cells_of(html) == ROWS


@pytest.mark.parametrize(
    ("structure", "cells"),
    [
        (["<table>", "<tr>", "<td></td>", "</tr>", "</table>"], CELLS[:1]),  # one cell holds all
        (["<table>", "<tr>", *["<td></td>"] * 6, "</tr>", "</table>"], CELLS),  # one row
        (["<table>", *["<tr>", "<td></td>", "</tr>"] * 6, "</table>"], CELLS),  # one column
        ([*WHOLE[:10], "<td", "</tr>", "</table>"], CELLS),  # a cell that is never opened: its words would be lost
        ([], []),
    ],
)
def test_another_gives_way_to_where_words_stand(structure: list[str], cells: list[list[float]]) -> None:
    html, rung = read(structure, cells)
    assert rung == "aligned_grid"
    assert cells_of(html) == ROWS


def test_one_row_or_one_column_is_no_table() -> None:
    assert read([], [], [["Fern", "12", "7"]])[0] == ""
    assert read([], [], [["Fern"], ["Moss"], ["Reed"]])[0] == ""
    assert grid_html([]) == ""


def test_runs_far_apart_in_a_row_contradict_a_cell_whatever_else_it_holds() -> None:
    found = runs(
        [word for line in table(0, 0, [["Key", "Value"], ["library", "all"], ["census", "one"]], 120) for word in line.words]
    )
    assert contradictions([found]) > 0.3
    assert contradictions([[run] for run in found]) == 0


def test_rules_that_were_typed_are_no_words() -> None:
    assert [without_rules(word) for word in ("|500,484|", "+-----+--", "-----", "|", "-", "--", "a|b")] == [
        "500,484", "", "", "", "-", "--", "a|b",
    ]  # fmt: skip


def test_a_table_that_is_none_keeps_its_words_as_text() -> None:
    spoken = [["Kraxi", "Systems,", "Inc.", "makes", "paper", "planes", "of", "many", "kinds"], ["and", "sells", "them", "well."]]
    words = tuple(
        Word(text, Box(40 + 50 * n, 100 + 14 * row, 80 + 50 * n, 110 + 14 * row), row, 10)
        for row, line in enumerate(spoken)
        for n, text in enumerate(line)
    )
    page = RasterPage(np.full((800, 600, 3), 255, np.uint8), 72, 600, 800, words)
    reader = EmbeddedReader(load().recognize)

    class NoTable:
        name = "none"

        def read(self, crop: Pixels, words: object) -> tuple[str, str | None]:
            return "", None

    reader._tables = NoTable()  # type: ignore[assignment]
    reader.__dict__["weights"] = ""
    reading = reader.read(page, [Region("table", Box(30, 90, 560, 140), 0.9, "table")])
    assert [block.label for block in reading.blocks] == ["text"]
    assert reading.blocks[0].content == " ".join(word for line in spoken for word in line)
