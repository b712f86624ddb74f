"""Lines of a region as text: paragraphs closed up, items of a list one a line.

Invariant: pure; every word comes out once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.layout.cues import is_item
from pipelines.layout.lines import TextLine, merged, rows_of
from pipelines.recognize.textlayer import join_lines


def content(label: str, lines: Sequence[TextLine]) -> str:
    """The text of a region with this label."""
    rows = [merged(row).text for row in rows_of(lines)]
    return "\n".join(_items(rows)) if label == "list" else join_lines(rows)


def _items(rows: Sequence[str]) -> list[str]:
    """A row that begins an item begins a line; others go on with the item above."""
    items: list[list[str]] = []
    for row in rows:
        if is_item(row) or not items:
            items.append([])
        items[-1].append(row)
    return [join_lines(item) for item in items]
