"""Attention of the language model on Hopper, without splitting one answer's keys over several workers.

FlashAttention 3 may give the keys of one query to several blocks of threads and add up their parts with another kernel. That
pays where few answers are under way and the card is empty. With hundreds of them it costs: vLLM leaves the choice to the
library in every step that takes new crops, and allows 32 parts in the steps that only decode. On an H200 with 1,024 places
the adding up alone was a tenth of a decode step and 160 us a layer of a step that takes crops (docs/performance.md).

Invariant: the same kernels and the same mathematics (sums are rounded in another order); a batch size that was captured as
a CUDA graph is always asked with the same number of parts as when it was captured. Whoever sets vLLM's own
`flash_attn_max_num_splits_for_cuda_graph` keeps vLLM's behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backends import flash_attn

_FEW = 32  # tokens of a step: with 2 heads of keys, 64 blocks of threads for an H200's 132 processors
_VLLMS_OWN = 32  # default of flash_attn_max_num_splits_for_cuda_graph
_ALWAYS = 1 << 30


class _Builder(flash_attn.FlashAttentionMetadataBuilder):
    """vLLM's, which asks itself how many parts a step of so many tokens may have."""

    max_num_splits: int  # of vLLM: what the next metadata allow; 0: the library chooses

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: Any) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self._few = few(vllm_config.compilation_config.cudagraph_capture_sizes or ())
        self._parts = self.max_num_splits
        self.max_cudagraph_size = _ALWAYS  # so that steps larger than every graph ask, too

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Any:
        self.max_num_splits = self._parts if common_attn_metadata.num_actual_tokens <= self._few else 1
        return super().build(common_prefix_len, common_attn_metadata, fast_build)


class Unsplit(flash_attn.FlashAttentionBackend):
    """vLLM's FlashAttention with that builder."""

    @staticmethod
    def get_builder_cls() -> type[_Builder]:
        return _Builder


def few(captured: Sequence[int]) -> int:
    """Largest number of tokens whose keys are still split: a captured size, so that a step padded to a size falls on its side."""
    return max((size for size in captured if size <= _FEW), default=0)


def unsplit(model: Any, vllm_config: Any) -> bool:
    """Gives the model's layers that attention, before vLLM asks them for theirs. False: they keep what vLLM picked."""
    graphs = vllm_config.compilation_config.cudagraph_mode
    own = vllm_config.attention_config.flash_attn_max_num_splits_for_cuda_graph != _VLLMS_OWN
    if own or graphs is None or not graphs.has_full_cudagraphs() or flash_attn.get_flash_attn_version() != 3:
        return False
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    if not layers or any(layer.attn_backend is not flash_attn.FlashAttentionBackend for layer in layers):
        return False
    for layer in layers:
        layer.attn_backend = Unsplit
    return True
