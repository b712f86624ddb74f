"""NID and TEDS, defined as opendataloader-bench defines them, so that figures stand beside those that it publishes.

NID: 1 - normalised insertion-deletion distance of the two texts in reading order, tables as HTML, white space collapsed.
TEDS: 1 - tree edit distance / size of the larger tree, over all tables of a document under one root; a cell costs its
normalised Levenshtein distance, or 1 when its spans differ; `th` counts as `td`, head and body are not told apart.
Invariant: pure; 0..1, 1 is equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from apted import APTED, Config
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from jobs.scoring.markup import Table, body, plain

_EMPHASIS = re.compile(r"(\*{1,3}|~~|__|_)(\S(?:.*?\S)?)\1", re.S)
_MOST_NODES = 1500  # of one side: APTED is cubic; such a pair is scored on its first rows


def nid(truth: str, read: str) -> float | None:
    """None where the truth is empty."""
    wanted, found = (_stream(text) for text in (truth, read))
    return fuzz.ratio(wanted, found) / 100.0 if wanted else None


def _stream(markdown: str) -> str:
    text, before = body(markdown), ""
    while before != text:
        before, text = text, _EMPHASIS.sub(r"\2", text)
    return plain(text)


@dataclass(slots=True)
class _Node:
    tag: str
    text: str = ""
    spans: tuple[int, int] = (1, 1)
    children: list[_Node] = field(default_factory=list)

    def size(self) -> int:
        return 1 + sum(child.size() for child in self.children)


class _Costs(Config):
    """Renaming a node; inserting or deleting one costs 1."""

    def rename(self, node1: _Node, node2: _Node) -> float:
        if node1.tag != node2.tag or node1.spans != node2.spans:
            return 1.0
        longest = max(len(node1.text), len(node2.text))
        return Levenshtein.distance(node1.text, node2.text) / longest if longest else 0.0

    def children(self, node: _Node) -> list[_Node]:
        return node.children


def teds(truth: Sequence[Table], read: Sequence[Table]) -> float | None:
    """None where the truth has no table; 0 where only the truth has one."""
    if not truth:
        return None
    if not read:
        return 0.0
    wanted, found = _tree(truth), _tree(read)
    if wanted == found:
        return 1.0
    size = max(wanted.size(), found.size()) - 1  # the root is not counted
    return max(0.0, 1.0 - float(APTED(wanted, found, _Costs()).compute_edit_distance()) / size)


def _tree(found: Sequence[Table]) -> _Node:
    root = _Node("root")
    room = _MOST_NODES
    for table in found:
        node = _Node("table")
        for row in table.rows:
            room -= 1 + len(row)
            if room < 0:
                break
            cells = [_Node("td", plain(cell.text), (cell.colspan, cell.rowspan)) for cell in row]
            node.children.append(_Node("tr", children=cells))
        root.children.append(node)
    return root
