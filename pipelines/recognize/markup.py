"""HTML that a model wrote of a table, brought down to what a table needs.

Invariant: pure, never raises; only table tags and whole-number spans come out, all else as text, and what was opened is
closed: an answer cannot become markup of ours.
"""

from __future__ import annotations

import html
from html.parser import HTMLParser
from typing import TypeGuard

_TAGS = frozenset({"table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption", "sup", "sub", "br"})
_SPANS = frozenset({"rowspan", "colspan"})
_MOST_SPAN = 1000
_SILENT = frozenset({"script", "style"})  # their content is no text of the page


class _Allowed(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.open: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        if tag not in _TAGS:
            return
        spans = [f' {name}="{min(int(value), _MOST_SPAN)}"' for name, value in attrs if name in _SPANS and _whole(value)]
        self.out.append(f"<{tag}{''.join(spans)}>")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT and self._silent > 0
        if tag not in self.open:
            return
        while self.open:
            closed = self.open.pop()
            self.out.append(f"</{closed}>")
            if closed == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.out.append(html.escape(data))


def _whole(value: str | None) -> TypeGuard[str]:
    return value is not None and value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0


def table_markup(text: str) -> str:
    """The table of an answer that is HTML, without anything that is no table."""
    parser = _Allowed()
    parser.feed(text)
    parser.close()
    return "".join([*parser.out, *(f"</{tag}>" for tag in reversed(parser.open))])
