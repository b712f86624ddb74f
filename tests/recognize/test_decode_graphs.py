"""Every batch of decoding has a CUDA graph: vLLM's own list where it reaches, ours beyond."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import load
from pipelines.recognize.decode_graphs import VLLMS_MOST, graph_sizes
from pipelines.recognize.vllm_engine import _arguments


@pytest.mark.parametrize("places", [1, 8, 500, 1000, 1024])
def test_graphs_reach_all_places_in_small_steps(places: int) -> None:
    sizes = graph_sizes(places)
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1
    assert sizes[-1] == places
    assert all(after - before <= 32 for before, after in pairwise(sizes))


def arguments(*settings: str) -> dict[str, Any]:
    return _arguments(load(settings=settings), Path("model"))


def test_only_where_vllms_own_list_ends_before() -> None:
    assert "cudagraph_capture_sizes" not in arguments(f"vllm.max_num_seqs={VLLMS_MOST}")
    assert arguments("vllm.max_num_seqs=1000")["cudagraph_capture_sizes"][-1] == 1000
    own = '{"compilation_config": {"cudagraph_capture_sizes": [1, 8]}}'  # vLLM takes either, not both
    assert "cudagraph_capture_sizes" not in arguments("vllm.max_num_seqs=1000", f"vllm.engine_args={own}")
