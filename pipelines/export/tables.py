"""The tables of an output alone: grids of text, as CSV, XLSX or JSON Lines.

Invariant: every cell's text is what was read, to the character; a cell that spans others stands at its first place and leaves
the others empty; a table that goes on over pages is one, by the same rule as in the document's Markdown.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.assemble.document import join_tables
from pipelines.errors import ConfigError
from pipelines.export.documents import Exported
from pipelines.schema import FURNITURE
from pipelines.store.objects import ObjectStore

COLUMNS = ("page_index", "blocks")
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")  # what a spreadsheet keeps exactly
_MOST_SPAN = 1000  # columns or rows: what HTML itself allows a browser
_MOST_CELLS = 5_000_000  # of one table; beyond it the spans are nonsense and each cell takes one place


@dataclass(slots=True, frozen=True)
class Table:
    page_index: int  # where it begins
    pages: int  # over how many it goes
    number: int  # on its first page, from 1
    block_index: int
    html: str
    confidence: float | None
    bbox_pt: list[float]

    @property
    def grid(self) -> list[list[str]]:
        return grid(self.html)


class Writer(Protocol):
    def write(self, document: Exported, tables: Sequence[Table]) -> None: ...

    def close(self) -> None: ...


def tables(document: Exported) -> Iterator[Table]:
    """A document's tables in order."""
    waiting: Table | None = None  # ends its page, and may go on
    for row in document.pages:
        body = [b for b in row["blocks"] or [] if b["label"] not in FURNITURE and (b["content"] or b["html"] or b["image"])]
        number = 0
        for place, block in enumerate(body):
            if not block["html"]:
                continue
            number += 1
            first, last = place == 0, place == len(body) - 1
            joined = join_tables(waiting.html, block["html"]) if waiting and first and _follows(waiting, row) else None
            if waiting and joined is None:
                yield waiting
            if waiting and joined is not None:
                found = Table(waiting.page_index, waiting.pages + 1, waiting.number, waiting.block_index, joined,
                              waiting.confidence, waiting.bbox_pt)  # fmt: skip
                number -= 1
            else:
                found = Table(row["page_index"], 1, number, block["block_index"], block["html"], block["confidence"],
                              list(block["bbox_pt"]))  # fmt: skip
            waiting = found if last else None
            if not last:
                yield found
        if waiting and waiting.page_index + waiting.pages <= row["page_index"]:
            yield waiting
            waiting = None
    if waiting:
        yield waiting


def _follows(table: Table, row: dict[str, Any]) -> bool:
    return bool(table.page_index + table.pages == row["page_index"])


def grid(html: str) -> list[list[str]]:
    """Rows of equal length; a spanning cell's text stands at its first place only."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    trs = soup.find_all("tr")
    taken: dict[tuple[int, int], str] = {}
    width = 0
    for y, tr in enumerate(trs):
        x = 0
        for cell in tr.find_all(["td", "th"], recursive=False):
            while (y, x) in taken:
                x += 1
            across, down = _span(cell.get("colspan")), _span(cell.get("rowspan"))
            down = min(down, len(trs) - y)
            if len(taken) + across * down > _MOST_CELLS:
                across = down = 1
            for dy in range(down):
                for dx in range(across):
                    taken.setdefault((y + dy, x + dx), "")
            taken[y, x] = " ".join(cell.get_text(" ", strip=True).split())
            x += across
            width = max(width, x)
    return [[taken.get((y, x), "") for x in range(width)] for y in range(len(trs))]


def _span(value: Any) -> int:
    text = str(value or "1").strip()
    return min(_MOST_SPAN, max(1, int(text))) if text.isdecimal() and len(text) < 8 else 1


class CsvWriter:
    """`<document>/page-3-table-1.csv`, RFC 4180, UTF-8; and `tables.csv`, which names them all."""

    def __init__(self, target: ObjectStore) -> None:
        self._target = target
        self._index = io.StringIO()
        self._rows = csv.writer(self._index)
        self._rows.writerow(["doc_id", "uri", "page", "pages", "table", "rows", "columns", "confidence", "file"])

    def write(self, document: Exported, tables: Sequence[Table]) -> None:
        for table in tables:
            cells = table.grid
            sink = io.StringIO()
            csv.writer(sink).writerows(cells)
            name = f"{document.folder}/page-{table.page_index + 1}-table-{table.number}.csv"
            self._target.put(name, sink.getvalue().encode("utf-8", "replace"))
            size = [len(cells), len(cells[0]) if cells else 0]
            where = [document.doc_id, document.uri, table.page_index + 1, table.pages, table.number]
            self._rows.writerow([*where, *size, table.confidence, name])

    def close(self) -> None:
        self._target.put("tables.csv", self._index.getvalue().encode("utf-8", "replace"))


class JsonWriter:
    """`<document>.jsonl`: a line a table, with its grid, its HTML and where it came from."""

    def __init__(self, target: ObjectStore) -> None:
        self._target = target

    def write(self, document: Exported, tables: Sequence[Table]) -> None:
        lines = [
            json.dumps(
                {
                    "doc_id": document.doc_id, "uri": document.uri, "page_index": table.page_index, "pages": table.pages,
                    "table": table.number, "block_index": table.block_index, "bbox_pt": table.bbox_pt,
                    "confidence": table.confidence, "cells": table.grid, "html": table.html,
                }, ensure_ascii=False,
            )
            for table in tables
        ]  # fmt: skip
        if lines:
            self._target.put(f"{document.folder}.jsonl", ("\n".join(lines) + "\n").encode("utf-8", "replace"))

    def close(self) -> None:
        pass


class XlsxWriter:
    """`<document>.xlsx`: a sheet a table. Text is text (never a formula); plain numbers are numbers."""

    def __init__(self, target: ObjectStore) -> None:
        try:
            import xlsxwriter
        except ImportError as error:
            raise ConfigError("--as xlsx needs the package xlsxwriter: pip install 'pagemill[xlsx]'") from error
        self._workbook: Any = xlsxwriter.Workbook
        self._target = target

    def write(self, document: Exported, tables: Sequence[Table]) -> None:
        if not tables:
            return
        sink = io.BytesIO()
        options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
        with self._workbook(sink, options) as book:
            for table in tables:
                sheet = book.add_worksheet(f"p{table.page_index + 1} t{table.number}")
                for y, cells in enumerate(table.grid):
                    for x, text in enumerate(cells):
                        if _NUMBER.fullmatch(text):
                            sheet.write_number(y, x, float(text))
                        elif text:
                            sheet.write_string(y, x, text[:_LONGEST_CELL])
        self._target.put(f"{document.folder}.xlsx", sink.getvalue())

    def close(self) -> None:
        pass


_LONGEST_CELL = 32_767  # characters, the format's own limit
WRITERS: dict[str, type[CsvWriter] | type[JsonWriter] | type[XlsxWriter]] = {
    "csv": CsvWriter, "json": JsonWriter, "xlsx": XlsxWriter,
}  # fmt: skip
