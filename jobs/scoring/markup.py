"""Tables in Markdown, whoever wrote it: HTML ones and pipe ones, as rows of cells.

Invariant: pure; what is not a table stays where it was. Broken HTML gives fewer cells, never an exception.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

TABLE = re.compile(r"<table\b[^>]*>.*?</table>", re.S | re.I)
_PIPE_ROW = re.compile(r"^\s*\|.*\|\s*$")
_PIPE_RULE = re.compile(r"^\s*\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?)?\s*$")
_PIPE = re.compile(r"(?<!\\)\|")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")


@dataclass(slots=True)
class Cell:
    text: str = ""
    colspan: int = 1
    rowspan: int = 1
    heading: bool = False


@dataclass(slots=True)
class Table:
    rows: list[list[Cell]] = field(default_factory=list)


def body(markdown: str) -> str:
    """Markdown without front matter, comments (pagemill's page marks) and image references, pipe tables as HTML."""
    return pipes_to_html(_IMAGE.sub("", _COMMENT.sub("", _FRONT_MATTER.sub("", markdown))))


def tables(markdown: str) -> list[Table]:
    """Every table of a Markdown text, in order; one inside a cell of another is text of that cell."""
    return [_parse(found.group()) for found in TABLE.finditer(pipes_to_html(markdown))]


def pipes_to_html(markdown: str) -> str:
    """The same text with every pipe table as `<table>`; a row shorter than its neighbours stays shorter."""
    return "\n".join(_replaced(markdown.split("\n")))


def _replaced(lines: list[str]) -> Iterator[str]:
    waiting: list[str] = []
    for line in [*lines, ""]:
        if _PIPE_ROW.match(line):
            waiting.append(line)
            continue
        if waiting:
            yield from [_table(waiting)] if any(_PIPE_RULE.match(row) for row in waiting) else waiting
            waiting = []
        yield line


def _table(lines: list[str]) -> str:
    rows, heads = [], any(map(_PIPE_RULE.match, lines))
    for line in lines:
        if _PIPE_RULE.match(line):
            heads = False
            continue
        tag = "th" if heads else "td"
        cells = [part.strip().replace("\\|", "|") for part in _PIPE.split(line.strip()[1:-1])]
        rows.append("<tr>" + "".join(f"<{tag}>{html.escape(cell, quote=False)}</{tag}>" for cell in cells) + "</tr>")
    return "<table>" + "".join(rows) + "</table>"


def _parse(markup: str) -> Table:
    parser = _TableParser()
    parser.feed(markup)
    parser.close()
    return parser.table


class _TableParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.table = Table()
        self._cell: Cell | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._cell = None
            self.table.rows.append([])
        elif tag in ("td", "th"):
            if not self.table.rows:
                self.table.rows.append([])
            spans = dict(attrs)
            self._cell = Cell("", _span(spans.get("colspan")), _span(spans.get("rowspan")), tag == "th")
            self.table.rows[-1].append(self._cell)
        elif tag in ("br", "p", "div", "li") and self._cell is not None:
            self._cell.text += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.text += data


def _span(value: str | None) -> int:
    return max(1, min(1000, int(value))) if value and value.isdigit() else 1


def plain(text: str) -> str:
    """White space as single blanks."""
    return " ".join(text.split())
