"""Pages become a document's Markdown: page marks, and tables that cross a page made whole.

Invariant: streams; at most the pages that one table crosses are held. A page that was not read leaves a mark that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.schema import FURNITURE

_ROW = re.compile(r"<tr\b.*?</tr>", re.S)
_CELL = re.compile(r"<t[dh]\b([^>]*)>", re.S)
_COLSPAN = re.compile(r'colspan="?(\d+)')


@dataclass(slots=True, frozen=True)
class PageText:
    """What finalize needs of a page row."""

    page_index: int
    state: str
    error_code: str | None
    markdown: str
    blocks: Sequence[Mapping[str, Any]]


def document_markdown(pages: Iterable[PageText]) -> str:
    """The document's Markdown, UTF-8, `\\n` line ends, one at the end."""
    return "\n\n".join(_parts(pages)) + "\n"


def _parts(pages: Iterable[PageText]) -> Iterator[str]:
    waiting: tuple[str, str, str] | None = None  # text before a table that ends a page, the table, page marks behind it
    for page in pages:
        text = _page(page)
        if waiting is not None:
            before, table, marks = waiting
            first = _edge(page, 0)
            joined = join_tables(table, first) if first is not None else None
            waiting = None
            if first is not None and joined is not None:
                marks += f"\n\n<!-- page {page.page_index + 1} -->"
                text = page.markdown[len(first) :].strip()
                if not text:
                    waiting = before, joined, marks
                    continue
                table = joined
            yield before + table + marks
        tail = _edge(page, -1)
        if tail is not None and text.endswith(tail):
            waiting = text[: -len(tail)], tail, ""
        else:
            yield text
    if waiting is not None:
        yield "".join(waiting)


def _page(page: PageText) -> str:
    mark = f"<!-- page {page.page_index + 1} -->"
    if page.state == "failed":
        return f"<!-- page {page.page_index + 1}: not read ({page.error_code}) -->"
    return f"{mark}\n\n{page.markdown}" if page.markdown else mark


def _edge(page: PageText, end: int) -> str | None:
    """The table at the start (0) or the end (-1) of a page's body, or None."""
    body = [block for block in page.blocks if block["label"] not in FURNITURE and (block["content"] or block["html"])]
    if not body or not body[end]["html"]:
        return None
    html: str = body[end]["html"]
    return html if (page.markdown.startswith(html) if end == 0 else page.markdown.endswith(html)) else None


def join_tables(above: str, below: str) -> str | None:
    """One table of two, when they have equally many columns; a header repeated on the second is left out. Else None."""
    rows, more = _ROW.findall(above), _ROW.findall(below)
    if not rows or not more or _columns(rows) != _columns(more):
        return None
    if more[0] == rows[0]:
        more = more[1:]
    close = above.rfind("</tbody>")
    close = above.rfind("</table>") if close < 0 else close
    return above[:close] + "".join(more) + above[close:]


def _columns(rows: Sequence[str]) -> int:
    return max(sum(int((_COLSPAN.search(cell) or ["", "1"])[1]) for cell in _CELL.findall(row)) for row in rows)
