"""What an answer must look like to be worth learning: OTSL that is a table, LaTeX whose braces close, charts with columns.

Invariant: pure; each check returns None or one sentence that says where it goes wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TAGS = ("<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>")
_TAG = re.compile(r"<(?:fcel|ecel|lcel|ucel|xcel|nl)>")
_PAIRS = (  # as written, and how it is found; what stands behind another backslash is a line break
    (("\\[", r"\\\["), ("\\]", r"\\\]")),
    (("\\(", r"\\\("), ("\\)", r"\\\)")),
    (("\\left", r"\\left(?![a-zA-Z])"), ("\\right", r"\\right(?![a-zA-Z])")),
    (("\\begin", r"\\begin\{"), ("\\end", r"\\end\{")),
)
_LOOKS_LIKE_TAG = re.compile(r"</?(?:table|tr|td|th|thead|tbody)\b|<[fel]?[a-z]?cel[l]?>|<br\s*/?>\s*<nl>", re.IGNORECASE)


def otsl(text: str) -> str | None:
    """Rows of one width, spans that join a cell, nothing before the first tag."""
    stray = next((m for m in _LOOKS_LIKE_TAG.finditer(text) if m[0] not in _TAGS), None)
    if stray is not None:
        return f"a table is OTSL ({' '.join(_TAGS)}), found {stray[0]!r}"
    if not text.rstrip().endswith("<nl>"):
        return "every row of OTSL ends in <nl>"
    rows: list[list[str]] = []
    for nth, row in enumerate(text.strip().removesuffix("<nl>").split("<nl>")):
        tags = _TAG.findall(row)
        if not tags or not row.lstrip().startswith("<"):
            return f"row {nth + 1} does not begin with a cell"
        if rows and len(tags) != len(rows[0]):
            return f"row {nth + 1} has {len(tags)} cells, row 1 has {len(rows[0])}"
        rows.append(tags)
    return _spans(rows)


def _spans(rows: list[list[str]]) -> str | None:
    for r, row in enumerate(rows):
        for c, tag in enumerate(row):
            if tag in ("<lcel>", "<xcel>") and c == 0:
                return f"row {r + 1} begins with {tag}, which joins the cell to its left"
            if tag in ("<ucel>", "<xcel>") and r == 0:
                return f"row 1 has {tag}, which joins the cell above"
    return None


def latex(text: str) -> str | None:
    """Braces and \\left ... \\right in pairs."""
    depth = 0
    for nth, character in enumerate(text):
        if nth and text[nth - 1] == "\\" and (nth < 2 or text[nth - 2] != "\\"):
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return f"a }} without its {{ at character {nth + 1}"
    if depth:
        return f"{depth} of its {{ are never closed"
    for pair in _PAIRS:
        opened, closed = (len(re.findall(r"(?<!\\)" + sign, text)) for _, sign in pair)
        if opened != closed:
            return f"{opened} {pair[0][0]} and {closed} {pair[1][0]}"
    return None


def chart(text: str) -> str | None:
    """Rows of cells between bars, as many in each."""
    rows = [row for row in text.splitlines() if row.strip()]
    widths = {row.count("|") for row in rows}
    if len(rows) < 2 or widths == {0}:
        return "a chart is written as rows of cells with | between them, the first one its head"
    return None if len(widths) == 1 else f"the chart's rows have {sorted(w + 1 for w in widths)} cells"


CHECKS: dict[str, Callable[[str], str | None]] = {"table": otsl, "formula": latex, "chart": chart}
