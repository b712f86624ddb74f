"""The vision tower's pass by one launch instead of 300: crops are laid out in buffers of a few sizes, each a CUDA graph.

One engine's host spends a third of its time launching the tower's kernels (docs/performance.md). A graph needs inputs of one
size that stay where they are, so the patches that a pass lacks are one more crop, of whatever lies there, whose result
nobody looks at; crops know nothing of each other.

Invariant: what a pass gives for its crops is what it gives without a graph, within the rounding of products of another
height. What does not fit (a crop too long, too many of them, patches that are not bytes) goes without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.cuda_graph import Graphs

SLOTS = 64  # crops of a pass, what fills it up among them; a crop of the official budget has 576 patches at least
LONGEST = 6_144  # patches of a crop; of the official budget 5,120
_STEP = 512  # patches between two sizes: a pass of 14,000 is filled up by 2 % in the mean

Grid = tuple[int, int, int]
# patches (N, 3, p, p) uint8, the table of their crops, patches of the longest -> visual tokens (N / 4, hidden)
Compute = Callable[[Tensor, Tensor, Sequence[int]], Tensor]


def crop_table(grids: Sequence[Grid], slots: int) -> np.ndarray:
    """(4, slots + 1) int32: where each crop begins, and where the last ends; its height; its width; its patches."""
    count, lengths = len(grids), [t * h * w for t, h, w in grids]
    table = np.zeros((4, slots + 1), np.int32)
    table[0, 1 : count + 1] = np.cumsum(lengths)
    table[0, count + 1 :] = sum(lengths)
    table[1:3, :count] = [[h for _, h, _ in grids], [w for _, _, w in grids]]
    table[3, :count] = lengths
    return table


class GraphedPasses:
    """Passes of at most `most` patches."""

    def __init__(self, compute: Compute, patch: Sequence[int], most: int, device: torch.device, graphs: Graphs) -> None:
        self._compute, self._graphs = compute, graphs
        self._sizes = range(_STEP, most + 1, _STEP)
        self._patches = torch.zeros((most, 3, *patch), dtype=torch.uint8, device=device)
        self._table = torch.zeros((4, SLOTS + 1), dtype=torch.int32, device=device)

    def rehearse(self) -> None:
        """Captures all sizes, the largest first, whose memory the others share."""
        blank = torch.zeros_like(self._patches)
        for size in reversed(self._sizes):
            self.run([blank[: size // 4 - 4]] * 4, [(1, 2, size // 8 - 2)] * 4)

    def run(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> Tensor | None:
        """Visual tokens of the crops, one after the other, (tokens, hidden), to be kept; None: it has to go without."""
        lengths = [t * h * w for t, h, w in grids]
        total = sum(lengths)
        size = -(-total // _STEP) * _STEP
        fits = size in self._sizes and len(grids) < SLOTS and max(lengths) <= LONGEST
        if not fits or any(part.dtype != torch.uint8 or part.device != self._patches.device for part in patches):
            return None
        left = size - total  # a multiple of 4, as every crop's is
        rows = self._patches[:size]
        torch.cat(list(patches), out=rows[:total])
        table = torch.from_numpy(crop_table([*grids, (1, 2, left // 2)] if left else grids, SLOTS))
        self._table.copy_(table.pin_memory() if self._table.is_cuda else table, non_blocking=True)
        (tokens,) = self._graphs.run(size, self._one, (rows, self._table))
        return tokens[: total // 4].clone()

    def _one(self, patches: Tensor, table: Tensor) -> tuple[Tensor]:
        return (self._compute(patches, table, [LONGEST]),)
