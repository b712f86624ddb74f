"""Charts as a model writes them (cells by `|`, rows by line ends) to HTML.

Invariant: pure, never raises; cells are escaped, which the official code omits.
"""

from __future__ import annotations

import html

_CENTRED = " style='text-align: center;'"


def chart_table(answer: str, strict: bool = False) -> str:
    """A table whose first row is its head; "" for an answer without rows."""
    rows = [[cell.strip() for cell in line.split("|")] for line in answer.split("\n")]
    if not strict:
        rows = [[html.escape(cell) for cell in row] for row in rows if any(row)]
    if not rows:
        return ""
    head = "".join(f"<th{_CENTRED}>{cell}</th>" for cell in rows[0])
    body = "".join(f"    <tr>{''.join(f'<td{_CENTRED}>{cell}</td>' for cell in row)}</tr>\n" for row in rows[1:])
    return (
        f"<table border=1 style='margin: auto; width: max-content;'>\n  <thead><tr>{head}</tr></thead>\n"
        f"  <tbody>\n{body}  </tbody>\n</table>"
    )
