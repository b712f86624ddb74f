"""The tests of olmOCR-bench over a page's Markdown: present, absent, order, table; those that need a browser are not run.

Invariant: a test passes or fails by the benchmark's own definition (fuzzy matches of rapidfuzz, `max_diffs` of the test);
`math` gives None.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rapidfuzz import fuzz

from jobs.scoring.markup import Table, tables

_ALIKE = str.maketrans("‘’‚“”„＿–—‑‒−µ", "'''\"\"\"_-----μ")
_MARKS = (re.compile(r"\*\*(.*?)\*\*"), re.compile(r"__(.*?)__"), re.compile(r"\*(.*?)\*"), re.compile(r"_(.*?)_"))
_Place = tuple[int, int]


def passes(test: Mapping[str, Any], markdown: str) -> bool | None:
    """Whether a page's Markdown passes; None: a kind of test that is not run."""
    kind = test["type"]
    if kind in ("present", "absent"):
        return _stands(test, markdown) is (kind == "present")
    if kind == "order":
        return _in_order(test, _normal(markdown))
    if kind == "table":
        return any(_table_has(test, table) for table in tables(markdown))
    return None


def _normal(text: str) -> str:
    text = re.sub(r"<br\s*/?>", " ", text)
    text = re.sub(r"</?[bi]>", "", text)
    for mark in _MARKS:
        text = mark.sub(r"\1", text)
    return unicodedata.normalize("NFC", re.sub(r"\s+", " ", text)).translate(_ALIKE)


def _stands(test: Mapping[str, Any], markdown: str) -> bool:
    wanted, found = _normal(test["text"]), _normal(markdown)
    if test.get("case_sensitive") is False:
        wanted, found = wanted.lower(), found.lower()
    first, last = test.get("first_n"), test.get("last_n")
    if first or last:
        found = (found[:first] if first else "") + (found[-last:] if last else "")
    most = test.get("max_diffs", 0)
    if len(found) < len(wanted) - most:
        return False
    return bool(fuzz.partial_ratio(wanted, found) / 100.0 >= 1.0 - most / max(1, len(wanted)))


def _in_order(test: Mapping[str, Any], text: str) -> bool:
    """Some place of `before` lies before some place of `after`."""
    most = test.get("max_diffs", 0)
    before, after = (list(_places(_normal(test[key]), text, most)) for key in ("before", "after"))
    return bool(before and after and min(before) < max(after))


def _places(wanted: str, text: str, most: int) -> Iterator[int]:
    if most == 0:
        yield from (found.start() for found in re.finditer(re.escape(wanted), text))
        return
    for start in range(max(1, len(text) - len(wanted) + 1)):
        if fuzz.ratio(wanted, text[start : start + len(wanted)]) / 100.0 >= 1.0 - most / len(wanted):
            yield start


def _table_has(test: Mapping[str, Any], table: Table) -> bool:
    grid = _Grid(table)
    return any(
        _alike(test["cell"], text, test) and all(_holds(test, key, grid, place) for key in _RELATIONS if test.get(key))
        for place, text in grid.texts.items()
    )


def _alike(wanted: str, found: str, test: Mapping[str, Any]) -> bool:
    wanted = _normal(wanted)
    return bool(fuzz.ratio(wanted, _normal(found)) / 100.0 >= max(0.5, 1.0 - test.get("max_diffs", 0) / max(1, len(wanted))))


_RELATIONS = {
    "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1), "top_heading": (-1, 0), "left_heading": (0, -1),
}  # fmt: skip


def _holds(test: Mapping[str, Any], key: str, grid: _Grid, place: _Place) -> bool:
    step = _RELATIONS[key]
    near = grid.headings(place, step) if key.endswith("heading") else grid.beside(place, step)
    return any(_alike(test[key], grid.texts[other], test) for other in near)


class _Grid:
    """A table with its spans laid out; a cell is named by its top left place."""

    def __init__(self, table: Table) -> None:
        self.texts: dict[_Place, str] = {}
        self._heads: set[_Place] = set()
        self._owner: dict[_Place, _Place] = {}
        for r, row in enumerate(table.rows):
            c = 0
            for cell in row:
                while (r, c) in self._owner:
                    c += 1
                self.texts[r, c] = " ".join(cell.text.split())
                if cell.heading:
                    self._heads.add((r, c))
                for down in range(min(cell.rowspan, len(table.rows) - r)):
                    for across in range(cell.colspan):
                        self._owner.setdefault((r + down, c + across), (r, c))
                c += cell.colspan

    def beside(self, place: _Place, step: _Place) -> set[_Place]:
        """The cells that touch a cell's side in one direction."""
        own = [at for at, owner in self._owner.items() if owner == place]
        near = (self._owner.get((r + step[0], c + step[1])) for r, c in own)
        return {owner for owner in near if owner is not None and owner != place}

    def headings(self, place: _Place, step: _Place) -> set[_Place]:
        """Heading cells on the way to the edge, or, where none is marked, the cells at the edge."""
        heads: set[_Place] = set()
        ends: set[_Place] = set()
        seen: set[_Place] = set()
        waiting = {place}
        while waiting:
            at = waiting.pop()
            seen.add(at)
            if at in self._heads:
                heads.add(at)
            further = self.beside(at, step)
            if not further:
                ends.add(at)
            waiting |= further - seen
        return (heads - {place}) or (ends - {place})


def count(results: Iterable[bool | None]) -> dict[str, int]:
    """How many passed, failed and were not run."""
    found = list(results)
    return {"passed": found.count(True), "failed": found.count(False), "not_run": found.count(None)}
