"""Reading order: columns, spanning titles, grids; every box once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.layout.order import reading_order
from pipelines.schema import Box


def test_two_columns_under_a_title() -> None:
    title = Box(50, 20, 550, 60)
    left = [Box(50, 100 + 60 * n, 280, 150 + 60 * n) for n in range(3)]
    right = [Box(320, 110 + 70 * n, 550, 160 + 70 * n) for n in range(3)]
    boxes = [right[1], left[2], title, left[0], right[0], left[1], right[2]]
    assert [boxes[i] for i in reading_order(boxes)] == [title, *left, *right]


def test_three_columns_and_a_footer() -> None:
    columns = [
        [Box(50 + 180 * c, 100 + 100 * r + 7 * c, 210 + 180 * c, 190 + 100 * r + 7 * c) for r in range(3)] for c in range(3)
    ]
    footer = Box(50, 700, 570, 720)
    boxes = [footer, *[box for row in zip(*columns, strict=True) for box in row]]
    assert [boxes[i] for i in reading_order(boxes)] == [*columns[0], *columns[1], *columns[2], footer]


def test_a_figure_across_the_middle() -> None:
    top = [Box(50, 50, 280, 200), Box(320, 50, 550, 200)]
    figure = Box(50, 230, 550, 400)
    bottom = [Box(50, 430, 280, 700), Box(320, 430, 550, 700)]
    boxes = [bottom[1], figure, top[1], bottom[0], top[0]]
    assert [boxes[i] for i in reading_order(boxes)] == [*top, figure, *bottom]


def test_a_gap_that_runs_through_both_columns_by_chance_does_not_end_them() -> None:
    title = Box(50, 20, 550, 60)
    left = [Box(50, 100, 280, 120), Box(50, 130, 280, 250), Box(50, 262, 280, 500)]
    right = [Box(320, 100, 550, 120), Box(320, 126, 550, 252), Box(320, 260, 550, 480)]
    boxes = [right[2], left[1], title, right[0], left[0], left[2], right[1]]
    assert [boxes[i] for i in reading_order(boxes)] == [title, *left, *right]


corner = st.integers(0, 900)
box = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), corner, corner, st.integers(1, 400), st.integers(1, 400))


@settings(deadline=None)  # a loaded machine is slow
@given(st.lists(box, max_size=30))
def test_every_box_comes_out_once(boxes: list[Box]) -> None:
    assert sorted(reading_order(boxes)) == list(range(len(boxes)))
