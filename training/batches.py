"""Examples packed end to end into batches of one fixed shape: what a training step takes.

Invariant: sequences never see each other (their bounds travel with the batch), a label stands where the model predicts
it, and every array has the capacity's shape whatever is in it, so that a compiled step is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

IGNORE = -100
_FILLING = 128  # tokens; what is left of a batch is cut into sequences so short that they cost nothing
SLOTS = 4  # characters that a patch may hold, for the training aid

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Example:
    """One sequence: a prompt with one or more pictures, and what is to be said."""

    patches: npt.NDArray[np.uint8]  # (n, channels, p, p); one channel: grey
    grids: list[tuple[int, int]]  # patches down and across, per picture
    ids: Ints  # (t,), pictures' placeholders included
    labels: Ints  # (t,): the token itself where it is to be learnt, else IGNORE
    positions: Ints  # (3, t)
    image_at: Ints  # (m,) where the pictures' merged tokens stand in `ids`
    marks: npt.NDArray[np.uint8] | None = None  # (n, SLOTS) class of the characters in each patch, 0 none
    places: npt.NDArray[np.int16] | None = None  # (t, 2) merged column and row where the next token is drawn, -1 unknown


@dataclass(slots=True, frozen=True)
class Capacity:
    patches: int
    tokens: int
    sequences: int
    longest: int = 4096  # no sequence is longer

    def holds(self, patches: int, tokens: int, sequences: int) -> bool:
        return patches <= self.patches and tokens <= self.tokens and sequences <= self.sequences


@dataclass(slots=True)
class Batch:
    """Arrays of a fixed shape: P patches, T tokens, M = P / merge^2 merged tokens, S sequences."""

    patches: npt.NDArray[np.uint8]  # (P, channels * p * p)
    cells: npt.NDArray[np.int32]  # (P, 2) row and column
    taps: npt.NDArray[np.int32]  # (P, 4) into the table of position embeddings
    tap_weights: npt.NDArray[np.float32]  # (P, 4)
    patch_bounds: npt.NDArray[np.int32]  # cumulative, one picture is one sequence
    merged: npt.NDArray[np.int32]  # (M, merge^2) patches of each merged token
    image_at: npt.NDArray[np.int64]  # (M,) token that each merged token stands for; T: nowhere
    ids: Ints  # (T,)
    labels: Ints  # (T,) of the next token
    positions: Ints  # (3, T)
    token_bounds: npt.NDArray[np.int32]
    marks: npt.NDArray[np.uint8]  # (P, SLOTS); 255 unknown
    places: npt.NDArray[np.int16]  # (T, 2)
    sequence: npt.NDArray[np.int32]  # (T,) which example a token belongs to, -1 filling
    examples: int = 0
    tasks: list[str] = field(default_factory=list)


def taps_of(rows: int, columns: int, side: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Bilinear resampling (corners not aligned, as the released models do) of a `side` x `side` table to a grid."""

    def axis(count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        at = np.maximum((np.arange(count, dtype=np.float64) + 0.5) * (side / count) - 0.5, 0.0)
        low = np.minimum(np.floor(at).astype(np.int32), side - 1)
        high = np.minimum(low + 1, side - 1)
        share = (at - low).astype(np.float32)
        return np.stack([low, high], 1), np.stack([1 - share, share], 1)

    (r, rw), (c, cw) = axis(rows), axis(columns)
    index = r[:, None, :, None] * side + c[None, :, None, :]
    weight = rw[:, None, :, None] * cw[None, :, None, :]
    return index.reshape(-1, 4), weight.reshape(-1, 4)


@lru_cache(maxsize=8192)
def _grid(rows: int, columns: int, side: int, merge: int) -> tuple[npt.NDArray[Any], ...]:
    cells = np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T
    taps, weights = taps_of(rows, columns, side)
    order = np.arange(rows * columns, dtype=np.int32).reshape(rows // merge, merge, columns // merge, merge)
    return cells, taps, weights, order.transpose(0, 2, 1, 3).reshape(-1, merge * merge)


def _bounds(lengths: Sequence[int], capacity: int, slots: int, longest: int) -> npt.NDArray[np.int32]:
    """Cumulative bounds: the sequences, then filling cut into pieces, then empty ones."""
    cuts = [0, *np.cumsum(lengths).tolist()] if lengths else [0]
    longest = min(longest, _FILLING)
    while cuts[-1] < capacity:
        cuts.append(min(capacity, cuts[-1] + longest))
    width = slots + 2 + -(-capacity // longest)
    return np.array(cuts + [capacity] * (width - len(cuts)), np.int32)


def pack(examples: Sequence[Example], capacity: Capacity, side: int, merge: int = 2) -> Batch:
    """One batch; the caller has seen to it that the examples fit."""
    P, T = capacity.patches, capacity.tokens
    M, first = P // merge**2, examples[0].patches
    batch = Batch(
        np.zeros((P, first[0].size), np.uint8), np.zeros((P, 2), np.int32), np.zeros((P, 4), np.int32),
        np.zeros((P, 4), np.float32), np.zeros(0, np.int32), np.zeros((M, merge**2), np.int32),
        np.full(M, T, np.int64), np.zeros(T, np.int64), np.full(T, IGNORE, np.int64), np.zeros((3, T), np.int64),
        np.zeros(0, np.int32), np.full((P, SLOTS), 255, np.uint8), np.full((T, 2), -1, np.int16),
        np.full(T, -1, np.int32), len(examples),
    )  # fmt: skip
    p = t = m = 0
    pictures: list[int] = []
    for number, example in enumerate(examples):
        batch.patches[p : p + len(example.patches)] = example.patches.reshape(len(example.patches), -1)
        if example.marks is not None:
            batch.marks[p : p + len(example.patches)] = example.marks
        batch.image_at[m : m + len(example.image_at)] = example.image_at + t
        for rows, columns in example.grids:
            cells, taps, weights, order = _grid(rows, columns, side, merge)
            n = rows * columns
            batch.cells[p : p + n], batch.taps[p : p + n], batch.tap_weights[p : p + n] = cells, taps, weights
            batch.merged[m : m + len(order)] = order + p
            pictures.append(n)
            p, m = p + n, m + len(order)
        n = len(example.ids)
        batch.ids[t : t + n] = example.ids
        batch.labels[t : t + n - 1] = example.labels[1:]
        batch.positions[:, t : t + n] = example.positions
        batch.sequence[t : t + n] = number
        if example.places is not None:
            batch.places[t : t + n - 1] = example.places[1:]
        t += n
    batch.patch_bounds = _bounds(pictures, P, capacity.sequences, capacity.longest)
    batch.token_bounds = _bounds([len(e.ids) for e in examples], T, capacity.sequences, capacity.longest)
    return batch


def fill(examples: Iterable[Example], capacity: Capacity) -> Iterator[list[Example]]:
    """Groups examples, in their order, as many as a batch holds.

    Raises:
        ValueError: one example alone is larger than the capacity.
    """
    group: list[Example] = []
    patches = tokens = pictures = 0
    for example in examples:
        p, t, s = len(example.patches), len(example.ids), max(1, len(example.grids))
        if not capacity.holds(p, t, s):
            raise ValueError(f"an example of {p} patches and {t} tokens is larger than a whole batch ({capacity})")
        if not capacity.holds(patches + p, tokens + t, pictures + s):
            yield group
            group, patches, tokens, pictures = [], 0, 0, 0
        group.append(example)
        patches, tokens, pictures = patches + p, tokens + t, pictures + s
    if group:
        yield group
