"""A document that the tests' model reads: drawn here, its boxes and its truth known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.config import Config
from pipelines.layout.rules import around, holds
from pipelines.schema import Box, RasterPage, Region
from tests.builders import drawn_pdf, text_at

LINE = Box(18, 18, 290, 38)  # points from the top left: what `Given` says of every page
PARAGRAPH = Box(18, 46, 290, 102)
TABLE = Box(18, 110, 130, 174)
# columns as wide as what stands in them and a little: the model knows no others, and takes text that touches a rule for a
# cell of two columns
_COLUMNS, _ROWS = (20, 84, 128), (112, 132, 152, 172)


class Given:
    """Layout engine that knows: `layout.engine=tests.e2e.vllm_document:Given`."""

    name = "given"
    weights = ""
    batch_pages = 4

    def __init__(self, config: Config) -> None:
        pass

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        return [
            [
                Region("text", _tight(page, LINE), 1.0),
                Region("text", _tight(page, PARAGRAPH), 1.0),
                Region("table", TABLE.scaled(page.scale), 1.0),
            ]
            for page in pages
        ]


class Gated(Given):
    """Finds a block's regions at once, those of the next when a file stands at `gate`: no run ends before its test is ready."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._gate = gate(Path(str(config.source.cache_dir)))
        self._passed = False

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        until = time.monotonic() + 600
        while self._passed and not self._gate.exists() and time.monotonic() < until:
            time.sleep(0.05)
        self._passed = True
        return super().detect(pages)


def gate(cache: Path) -> Path:
    return cache.with_name("gate-open")


def _tight(page: RasterPage, box: Box) -> Box:
    """Around the words there, as a layout model would put it."""
    inside = around([word.box for word in page.words if holds(box, word.box)])
    return Box(inside.x0 - 2, inside.y0 - 2, inside.x1 + 2, inside.y1 + 2).scaled(page.scale)


def document(pages: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]) -> bytes:
    """
    Args:
        pages: (line, up to 4 lines of a paragraph, 3 rows of 2 cells) each.
    """
    return drawn_pdf([_page(*page) for page in pages])


def _page(line: str, paragraph: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    parts = [text_at(20, 200 - 32, line)]
    parts += [text_at(20, 200 - 58 - 14 * n, text) for n, text in enumerate(paragraph)]
    parts += [f"{x} {200 - _ROWS[0]} m {x} {200 - _ROWS[-1]} l S" for x in _COLUMNS]
    parts += [f"{_COLUMNS[0]} {200 - y} m {_COLUMNS[-1]} {200 - y} l S" for y in _ROWS]
    for top, cells in zip(_ROWS, rows, strict=False):
        parts += [text_at(x + 5, 200 - top - 14, text) for x, text in zip(_COLUMNS, cells, strict=False)]
    return " ".join(parts)


def table_html(rows: Sequence[Sequence[str]]) -> str:
    return "<table>" + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows) + "</table>"


PAGES = [
    (
        "Ledger of the northern archive",
        ["Every page that was planned ends", "in exactly one state: read, blank,", "degraded or failed."],
        [["river", "12.5"], ["stone", "340"], ["meadow", "7"]],
    ),
    (
        "Invoice 2024-11-03",
        ["The engine reads what the layout", "found, and a dead engine restarts", "with nothing missing."],
        [["paper", "18"], ["ink", "2.40"], ["total", "20.40"]],
    ),
    (
        "Harbour report, week 47",
        ["Four ships came in on Monday and", "two more on Thursday morning."],
        [["north", "4"], ["south", "2"], ["east", "0"]],
    ),
]
