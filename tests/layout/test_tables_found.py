"""Where tables are: by rules, by how text lines up; and what only looks like one."""

from __future__ import annotations

import pytest

from pipelines.layout.aligned import aligned_tables, is_contents, is_figure, is_tabular
from pipelines.layout.lines import rows_of
from pipelines.layout.ruled import find_rules, grids, stacks
from pipelines.schema import Box
from tests.layout.pages import HEIGHT, grid, line, page, prose, table

FIGURES = [["Plant", "1994", "1995"], ["Fern", "12.5", "13"], ["Moss", "7", "(8.25)"], ["Reed", "100", "-"]]


def test_a_grid_is_found_where_it_is_drawn() -> None:
    box = Box(80, 100, 500, 300)
    rules = find_rules(page(grid(box, 5, 3)).pixels)
    (found,) = grids(rules, HEIGHT)
    assert all(abs(a - b) <= 2 for a, b in zip(found, box, strict=True))
    assert stacks(find_rules(page().pixels), HEIGHT) == []


def test_a_frame_a_bar_and_underlined_words_are_no_grid() -> None:
    frame = grid(Box(80, 100, 500, 300), 1, 1)
    assert grids(find_rules(page(frame).pixels), HEIGHT) == []
    assert grids(find_rules(page(filled=[Box(80, 400, 500, 440)]).pixels), HEIGHT) == []
    underlined = [Box(80 + 30 * n, 500 + 40 * n, 300 + 10 * n, 501 + 40 * n) for n in range(4)]
    assert grids(find_rules(page(underlined).pixels), HEIGHT) == stacks(find_rules(page(underlined).pixels), HEIGHT) == []


def test_three_rules_of_equal_length_are_a_stack_and_stacks_side_by_side_are_one() -> None:
    rules = [Box(x, y, x + 150, y + 1) for x in (80, 260) for y in (100, 130, 300)]
    (found,) = stacks(find_rules(page(rules).pixels), HEIGHT)
    assert (found.x0, found.x1) == (pytest.approx(80, abs=2), pytest.approx(410, abs=2))


def test_figures_in_columns_are_a_table_without_any_rule() -> None:
    lines = table(100, 200, FIGURES)
    (box,) = aligned_tables(lines + prose(60, 60), [])
    assert box.y0 == 200
    assert is_tabular(lines)


def test_columns_of_prose_and_a_table_of_contents_are_none() -> None:
    columns = prose(40, 100, 8, 40) + prose(320, 100, 8, 40)
    assert aligned_tables(columns, []) == []
    contents = [line(f"Chapter of harbours {n}", 60, 100 + 16 * n) for n in range(5)]
    contents += [line(str(4 + 3 * n), 500, 100 + 16 * n) for n in range(5)]
    assert is_contents(rows_of(contents))
    assert aligned_tables(contents, []) == []


def test_short_lines_beside_each_other_in_two_regions_of_text_are_columns() -> None:
    lines = table(60, 100, [["1. find it", "4. mend it"], ["2. take it", "5. keep it"], ["3. bring it", "6. lend it"]], 250)
    assert len(aligned_tables(lines, [])) == 1
    assert aligned_tables(lines, [Box(55, 95, 280, 150), Box(305, 95, 560, 150)]) == []


def test_what_is_a_figure() -> None:
    assert all(map(is_figure, ["12", "1,136", "(8.25)", "-", "n/a", "$ 4,737", "47.2B", "12/03/2015", "3.5%", "< 0.05", "–"]))
    assert not any(map(is_figure, ["Fern", "12 ferns of a kind", "", "a 1", "Table 4"]))
