"""Paragraphs that go on in the next column, or around a figure, become one question.

Invariant: pure; every block comes out once, each group stands together where its first member stood, and what is not text
never joins a group.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

IntBox = tuple[int, int, int, int]

_EDGE = 5  # pixels within which two edges are the same
_GUTTER = 0.3  # of the wider paragraph
_GAP = 0.5  # of the higher paragraph
_TALL = 3  # height over width of a stack from which it is not one


@dataclass(slots=True, frozen=True)
class Stack:
    """Blocks whose crops are put under each other; `aligns` says how each after the first joins those above it."""

    members: tuple[int, ...]
    aligns: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Place:
    """Where a block goes."""

    index: int
    group: int | None = None  # index of the group's first member; None for what is not merged
    leads: bool = True  # False: its content stands in the leader
    stack: Stack | None = None  # of the leader


def merge(blocks: Sequence[tuple[str, IntBox]], apart: Set[str]) -> list[Place]:
    """
    Args:
        blocks: label and box of each, in reading order.
        apart: labels that take no part.
    """
    walked = [i for i, (label, _) in enumerate(blocks) if label not in apart]
    others = [i for i, (label, _) in enumerate(blocks) if label in apart]
    places: list[Place] = []
    done: set[int] = set()
    groups = {stack.members[0]: stack for stack in _groups(blocks, walked, others)}
    for i in range(len(blocks)):
        if i in done:
            continue
        if i not in groups:
            places.append(Place(i))
            continue
        places += _placed(groups[i], blocks)
        between = [n for n in others if i < n < groups[i].members[-1]]
        places += [Place(n) for n in between]
        done |= {*groups[i].members, *between}
    return places


def _placed(stack: Stack, blocks: Sequence[tuple[str, IntBox]]) -> list[Place]:
    boxes = [blocks[i][1] for i in stack.members]
    wide, high = max(max(1, b[2] - b[0]) for b in boxes), sum(max(1, b[3] - b[1]) for b in boxes)
    if high / wide >= _TALL:
        return [Place(i) for i in stack.members]
    first = stack.members[0]
    return [Place(i, first, i == first, stack if i == first else None) for i in stack.members]


def _groups(blocks: Sequence[tuple[str, IntBox]], walked: Sequence[int], others: Sequence[int]) -> list[Stack]:
    groups: list[tuple[list[int], list[str]]] = []
    for position, i in enumerate(walked):
        join = _join(blocks[walked[position - 1]], blocks[i], [blocks[n][1] for n in others]) if position else None
        if join is None:
            groups.append(([i], []))
        else:
            groups[-1][0].append(i)
            groups[-1][1].append(join)
    return [Stack(tuple(members), tuple(aligns)) for members, aligns in groups]


def _join(before: tuple[str, IntBox], now: tuple[str, IntBox], others: Sequence[IntBox]) -> str | None:
    """How a block joins the one before it (left, right, center), or None."""
    if before[0] != "text" or now[0] != "text":
        return None
    a, b = before[1], now[1]
    if min(a[2], b[2]) - max(a[0], b[0]) <= 0:
        close = b[0] - a[2] < _GUTTER * max(a[2] - a[0], b[2] - b[0])
        return "center" if b[0] > a[2] and b[1] < a[3] and close else None
    left, right = abs(a[0] - b[0]) <= _EDGE, abs(a[2] - b[2]) <= _EDGE
    near = b[3] >= a[1] and abs(b[1] - a[3]) < _GAP * max(a[3] - a[1], b[3] - b[1])
    if not near or left == right:
        return None
    around = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
    if not any(_meet(around, other) for other in others):
        return None
    return "left" if left else "right"


def _meet(a: IntBox, b: IntBox) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
