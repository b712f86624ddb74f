"""How many parts the keys of one answer are split into, by vLLM's own builder of attention's metadata, on a CPU.

What the kernels make of it needs a Hopper card: docs/performance.md.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-vllm")

import torch
from vllm.config import set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend
from vllm.v1.kv_cache_interface import FullAttentionSpec

from pipelines.recognize import vllm_attention
from pipelines.recognize.vllm_attention import Unsplit, few, unsplit
from tests.recognize.test_checkpoint import FIXTURE


def step(answers: int) -> CommonAttentionMetadata:
    """A step that decodes so many answers of 100 tokens."""
    starts = torch.arange(answers + 1, dtype=torch.int32)
    lengths = torch.full((answers,), 100, dtype=torch.int32)
    return CommonAttentionMetadata(
        query_start_loc=starts, query_start_loc_cpu=starts, seq_lens=lengths, num_reqs=answers, num_actual_tokens=answers,
        max_query_len=1, max_seq_len=100, block_table_tensor=torch.zeros((answers, 8), dtype=torch.int32),
        slot_mapping=torch.zeros(answers, dtype=torch.int64), causal=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def config() -> Any:
    return EngineArgs(model=str(FIXTURE), max_model_len=512, max_num_seqs=64, max_num_batched_tokens=512).create_engine_config()


@pytest.mark.parametrize("captured", [[1, 2, 4, 8, 16, 32, 64], [1, 2, 4, 8, 16, 24, 48, 64], [64]])
def test_a_step_is_never_split_otherwise_than_the_graph_it_is_padded_to(config: Any, captured: list[int]) -> None:
    config.compilation_config.cudagraph_capture_sizes = captured
    with set_current_vllm_config(config):
        builder = Unsplit.get_builder_cls()(
            FullAttentionSpec(block_size=16, num_kv_heads=2, head_size=64, dtype=torch.bfloat16), [], config, torch.device("cpu")
        )
    builder.use_full_cuda_graph, builder.aot_schedule = True, False  # as on a card, but for a kernel that only a card has
    builder._parts = 32

    def parts(answers: int) -> int:
        return int(builder.build(0, step(answers)).max_num_splits)

    for answers in range(1, 65):
        padded = min(size for size in captured if size >= answers)
        assert parts(answers) == parts(padded), f"{answers} answers in a graph of {padded}"
    assert parts(64) == parts(500) == 1  # 500: larger than every graph, new crops among them
    assert parts(1) == (32 if few(captured) else 1)


def test_what_is_few_is_a_captured_size() -> None:
    assert few([1, 2, 4, 8, 16, 32, 64]) == 32
    assert few([1, 16, 48]) == 16
    assert few([64]) == 0
    assert few([]) == 0


class _Model:
    def __init__(self, *backends: type) -> None:
        self.layers = [object.__new__(vllm_attention.Attention) for _ in backends]
        for layer, backend in zip(self.layers, backends, strict=True):
            object.__setattr__(layer, "attn_backend", backend)

    def modules(self) -> list[Any]:
        return self.layers


class _Other(FlashAttentionBackend):
    pass


@pytest.mark.parametrize(
    ("own", "version", "graphs", "backend", "taken"),
    [
        (32, 3, True, FlashAttentionBackend, True),
        (31, 3, True, FlashAttentionBackend, False),  # somebody has set vLLM's option
        (32, 2, True, FlashAttentionBackend, False),  # FlashAttention 2: another card
        (32, 3, False, FlashAttentionBackend, False),
        (32, 3, True, _Other, False),
    ],
)
def test_only_where_it_was_measured(
    monkeypatch: pytest.MonkeyPatch, own: int, version: int, graphs: bool, backend: type, taken: bool
) -> None:
    monkeypatch.setattr(vllm_attention.flash_attn, "get_flash_attn_version", lambda: version)
    config = SimpleNamespace(
        compilation_config=SimpleNamespace(cudagraph_mode=SimpleNamespace(has_full_cudagraphs=lambda: graphs)),
        attention_config=SimpleNamespace(flash_attn_max_num_splits_for_cuda_graph=own),
    )
    model = _Model(FlashAttentionBackend, backend)
    assert unsplit(model, config) is taken
    assert model.layers[0].attn_backend is (Unsplit if taken else FlashAttentionBackend)
