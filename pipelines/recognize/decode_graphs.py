"""Which batch sizes of decoding vLLM shall capture as CUDA graphs.

Invariant: every number of answers that can be under way is at most the largest size. vLLM's own list ends at 512, and a step
with more answers would be launched kernel by kernel.
"""

from __future__ import annotations

VLLMS_MOST = 512


def graph_sizes(places: int) -> list[int]:
    """Ascending; a step is padded to the next one, so they lie close where steps are small."""
    return sorted({n for n in (1, 2, 4, 8, *range(16, 257, 16), *range(288, places + 1, 32), places) if n <= places})
