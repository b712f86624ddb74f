"""The scorer: what equal, partly equal and different readings score, by the benchmarks' own definitions."""

from __future__ import annotations

import pytest

from jobs.scoring.markup import body, tables
from jobs.scoring.olmocr import passes
from jobs.scoring.similarity import nid, teds

GRID = "<table><tr><td>Item</td><td>Qty</td></tr><tr><td>Apple</td><td>10</td></tr></table>"


def test_nid_ignores_white_space_emphasis_and_what_pagemill_adds() -> None:
    assert nid("one two\nthree", "<!-- page 1 -->\n\n![figure](ab.png)\n\none  **two** three") == 1.0
    assert nid("abcd", "abxd") == pytest.approx(2 * 3 / 8)  # three of four characters in common
    assert nid("", "anything") is None
    assert nid("something", "") == 0.0


def test_teds_counts_cells_rows_and_spans() -> None:
    (grid,) = tables(GRID)
    assert teds([grid], [grid]) == 1.0
    assert teds([grid], tables(GRID.replace("<td>Item</td>", "<th>Item</th>"))) == 1.0
    assert teds([grid], []) == 0.0
    assert teds([], [grid]) is None
    # tree of the truth: table, 2 rows, 4 cells = 7 nodes; one cell renamed at full cost; one row of 2 cells missing
    assert teds([grid], tables(GRID.replace("Apple", "12345"))) == pytest.approx(1 - 1 / 7)
    assert teds([grid], tables(GRID.replace("<tr><td>Apple</td><td>10</td></tr>", ""))) == pytest.approx(1 - 3 / 7)
    assert teds([grid], tables(GRID.replace("<td>Qty", '<td rowspan="2">Qty'))) == pytest.approx(1 - 1 / 7)


def test_pipe_tables_are_tables_and_text_with_bars_is_not() -> None:
    (table,) = tables("before\n\n| Item | Qty |\n|---|:-:|\n| Apple | |\n\nafter")
    assert [[cell.text for cell in row] for row in table.rows] == [["Item", "Qty"], ["Apple", ""]]
    assert [cell.heading for row in table.rows for cell in row] == [True, True, False, False]
    assert tables("| no rule below |") == []
    assert "| no rule below |" in body("| no rule below |")


def test_present_absent_and_order() -> None:
    page = "The “steady” ledger\n\ninspected 150. units\n\n7"
    assert passes({"type": "present", "text": 'The "steady" ledger inspected'}, page)
    assert not passes({"type": "present", "text": "The unsteady ledger"}, page)
    assert passes({"type": "present", "text": "The steadi", "max_diffs": 4}, page)
    assert passes({"type": "absent", "text": "footer"}, page)
    assert not passes({"type": "absent", "text": "7", "last_n": 5}, page)
    assert passes({"type": "absent", "text": "150", "last_n": 5}, page)
    assert passes({"type": "order", "before": "ledger", "after": "units"}, page)
    assert not passes({"type": "order", "before": "units", "after": "ledger"}, page)
    assert passes({"type": "math", "math": "x"}, page) is None


SPANNED = (
    '<table><tr><th></th><th colspan="2">Year</th></tr><tr><td>Costs</td><td>10</td><td>20</td></tr>'
    "<tr><td>Gains</td><td>30</td><td>40</td></tr></table>"
)


@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        ({"cell": "40", "left": "30"}, True),
        ({"cell": "40", "left": "Gains"}, False),
        ({"cell": "40", "up": "20"}, True),
        ({"cell": "20", "down": "40"}, True),
        ({"cell": "10", "right": "20"}, True),
        ({"cell": "40", "top_heading": "Year"}, True),
        ({"cell": "40", "left_heading": "Gains"}, True),
        ({"cell": "40", "left_heading": "Costs"}, False),
        ({"cell": "99999"}, False),
    ],
)
def test_cells_and_their_neighbours(relation: dict[str, str], holds: bool) -> None:
    assert passes({"type": "table", **relation}, SPANNED) is holds
