"""PaddleOCR-VL's vision tower over all crops of an engine step at once, without waiting for the GPU.

vLLM's own class encodes crop by crop, and its attention asks the GPU for a length in each of 27 layers, so that the host
can never run ahead: an H100 is busy 18 % of the time with one engine (docs/performance.md). Here all crops of a step
go through in one pass, kept apart by their offsets; every length is known on the host; the small operations between the
matrix products are fused (`tower_triton`, or `tower_plain` where there is no Triton or no CUDA).

Invariants: same weights, same mathematics, and each crop's result within rounding of upstream's; nothing is cached that
grows with the number of grids, so what memory profiling saw is what a run takes; a pass never holds more than
`PASS_PATCHES` patches (or one crop, if that is larger).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.recognize import tower_plain
from pipelines.recognize.pack import PatchFormat, byte_table

PASS_PATCHES = 16_384  # 14 crops of an ordinary page; larger ones are no faster, and take 16 KB a patch
KNOWN_ATTENTION = ("FLASH_ATTN", "TRITON_ATTN", "TORCH_SDPA")
_ALIGN = 64  # columns: 588 values a patch are 1,176 bytes, which the tensor cores' copy engine cannot address in rows

Grid = tuple[int, int, int]
Attend = Callable[[Tensor, Tensor, Sequence[int]], Tensor]  # qkv (N, 3, H, D), offsets (crops + 1), lengths -> (N, H * D)
Norm = tuple[Tensor, Tensor, float]


class _Weights(NamedTuple):
    """Of a product. vLLM's parameters ask Python at each use: a fifth of the host's time for a pass of 108 products."""

    weight: Tensor
    bias: Tensor


class _Layer(NamedTuple):
    norm1: Norm
    norm2: Norm
    qkv: Any  # each product: `_Weights` on a card, upstream's module elsewhere
    out: Any
    fc1: Any
    fc2: Any
    activation: Any


class PackedTower:
    """Built from upstream's modules once their weights are loaded; `vllm_model.refusal` says for which."""

    def __init__(self, visual: Any, projector: Any, form: PatchFormat) -> None:
        vision = visual.vision_model
        attention = vision.encoder.layers[0].self_attn
        self.device, self.dtype = visual.device, visual.dtype
        self._cuda = self.device.type == "cuda"
        self._ops = _operations(self.device)
        self._heads: int = attention.num_attention_heads_per_partition
        self._attend = attention_of(attention.attn)
        self._layers = [
            _Layer(
                _norm(layer.layer_norm1), _norm(layer.layer_norm2), self._product(layer.self_attn.qkv_proj),
                self._product(layer.self_attn.out_proj), self._product(layer.mlp.fc1), self._product(layer.mlp.fc2),
                layer.mlp.activation_fn,
            )
            for layer in vision.encoder.layers
        ]  # fmt: skip
        self._last, self._projector = _norm(vision.post_layernorm), projector
        self._merge: int = form.merge
        embedding = vision.embeddings
        kernel = embedding.patch_embedding.weight.flatten(1)
        self._patch = embedding.patch_embedding.weight.shape[2:]
        self._width = -(-kernel.shape[1] // _ALIGN) * _ALIGN if self._cuda else kernel.shape[1]
        self._kernel = F.pad(kernel, (0, self._width - kernel.shape[1]))
        self._kernel_bias = embedding.patch_embedding.bias
        self._positions = embedding.position_embedding.weight
        self._frequencies = vision.encoder.rotary_pos_emb.inv_freq
        self._table = torch.from_numpy(byte_table(form)).to(self.device, self.dtype)
        self._fused_gelu = self._cuda and _is_tanh_gelu(vision.encoder.layers[0].mlp)

    def encode(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> list[Tensor]:
        """Visual tokens of each crop, (tokens, text hidden size).

        patches: one a crop, (t * h * w, 3, p, p), uint8 (normalised here) or float (already normalised), on any device.
        """
        found: list[Tensor] = []
        for part in passes([t * h * w for t, h, w in grids]):
            found += self._pass(patches[part], grids[part])
        return found

    def rehearse(self) -> None:
        """One pass of the largest size: compiles the kernels, and takes the memory that a run takes while vLLM measures it."""
        side = math.isqrt(PASS_PATCHES // 4)
        patches = torch.zeros((side * side, 3, *self._patch), dtype=torch.uint8, device=self.device)
        self.encode([patches] * 4, [(1, side, side)] * 4)

    def _pass(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> list[Tensor]:
        lengths = [t * h * w for t, h, w in grids]
        offsets, where, target = self._geometry(grids, lengths)
        angles = torch.cat((where[0].float()[:, None] * self._frequencies, where[1].float()[:, None] * self._frequencies), 1)
        cos, sin = angles.cos(), angles.sin()
        x = F.linear(self._floats(patches), self._kernel, self._kernel_bias)
        h = self._ops.place(x, self._positions, where, self._layers[0].norm1)
        for n, layer in enumerate(self._layers):
            qkv = self._linear(layer.qkv, h).view(len(x), 3, self._heads, -1)
            self._ops.rotate_(qkv, cos, sin)
            h = self._ops.add_norm_(x, self._linear(layer.out, self._attend(qkv, offsets, lengths)), layer.norm2)
            update = self._linear(layer.fc2, self._activated(layer, h))
            if n + 1 < len(self._layers):
                h = self._ops.add_norm_(x, update, self._layers[n + 1].norm1)
        p = self._projector
        h = self._ops.finish(x, update, self._last, _norm(p.pre_norm), target).view(-1, p.hidden_size)
        return list(p.linear_2(p.act(p.linear_1(h))).split([length // self._merge**2 for length in lengths]))

    def _geometry(self, grids: Sequence[Grid], lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets of the crops (int32); row, column, height and width of each patch (4, N); where the merged order puts it."""
        count, total, merge = len(grids), sum(lengths), self._merge
        host = np.zeros((4, count + 1), np.int32)
        host[0, 1:] = np.cumsum(lengths)
        host[1:3, :count] = [[h for _, h, _ in grids], [w for _, _, w in grids]]
        host[3, :count] = lengths
        packed = torch.from_numpy(host)
        packed = packed.pin_memory().to(self.device, non_blocking=True) if self._cuda else packed
        crop = torch.repeat_interleave(torch.arange(count, device=self.device), packed[3, :count], output_size=total)
        start, height, width = packed[0][crop], packed[1][crop], packed[2][crop]
        inside = torch.arange(total, dtype=torch.int32, device=self.device) - start
        frame_start = inside - inside % (height * width)
        inside = inside - frame_start
        row = inside // width
        column = inside - row * width
        token = (row // merge) * (width // merge) + column // merge
        target = start + frame_start + token * merge**2 + (row % merge) * merge + column % merge
        return packed[0], torch.stack((row, column, height, width)), target.int()

    def _floats(self, patches: Sequence[Tensor]) -> Tensor:
        """(N, width) normalised patches, in the order given; each run of one kind (bytes, floats) is handled at once."""
        parts: list[Tensor] = []
        for kind, run in _runs(patches):
            joined = torch.cat([p.to(self.device, non_blocking=True) for p in run]) if len(run) > 1 else run[0].to(self.device)
            if kind == torch.uint8:
                parts.append(self._ops.floats(joined.contiguous(), self._table, self._width))
            else:
                flat = joined.to(self.dtype).flatten(1)
                parts.append(F.pad(flat, (0, self._width - flat.shape[1])))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _product(self, module: Any) -> Any:
        return _Weights(module.weight.data, module.bias.data) if self._cuda else module

    def _linear(self, product: Any, x: Tensor) -> Tensor:
        if self._cuda:
            return F.linear(x, product.weight, product.bias)
        output, _ = product(x)  # vLLM's CPU build may have repacked the weights
        return output

    def _activated(self, layer: _Layer, x: Tensor) -> Tensor:
        if self._fused_gelu:  # in the product's epilogue; on CPU this operation computes another GELU
            return torch._addmm_activation(layer.fc1.bias, x, layer.fc1.weight.t(), use_gelu=True)
        return layer.activation(self._linear(layer.fc1, x))


def passes(lengths: Sequence[int], limit: int = PASS_PATCHES) -> Iterator[slice]:
    """Cuts crops, in order, into passes of about equal size, of at most `limit` patches each (or one crop)."""
    total = sum(lengths)
    goal = total / max(1, -(-total // limit))
    first = held = 0
    for n, length in enumerate(lengths):
        if held and (held + length > limit or held + length / 2 > goal):
            yield slice(first, n)
            first, held = n, 0
        held += length
    if lengths:
        yield slice(first, len(lengths))


def attention_of(upstream: Any) -> Attend:
    """The attention that vLLM picked for this card and head size (FlashAttention 3 on Hopper), without its host syncs.

    Raises:
        ValueError: a backend that was not verified.
    """
    backend = upstream.attn_backend.name
    if backend == "TORCH_SDPA":
        return _sdpa(upstream.scale)
    if backend == "TRITON_ATTN":
        return _triton(upstream.scale)
    if backend == "FLASH_ATTN":
        return _flash(upstream.scale, upstream._fa_version)
    raise ValueError(f"attention backend {backend}")


def _flash(scale: float, version: int | None) -> Attend:
    from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func

    # FlashAttention 3 would split each crop's keys, and add up the parts with another kernel, in every pass whose longest crop
    # has fewer than some 1,150 patches: it looks at that one as if it were alone. 15 to 18 crops of 576 to 1,100: 167 to 210 us a
    # layer, in one part 139 to 178 (H200); also a crop of 580 alone is faster in one (85 and 70).
    parts = {"num_splits": 1} if version == 3 else {}

    def attend(qkv: Tensor, offsets: Tensor, lengths: Sequence[int]) -> Tensor:
        longest = max(lengths)
        output = flash_attn_varlen_func(
            qkv[:, 0], qkv[:, 1], qkv[:, 2], cu_seqlens_q=offsets, cu_seqlens_k=offsets, max_seqlen_q=longest,
            max_seqlen_k=longest, dropout_p=0.0, causal=False, softmax_scale=scale, fa_version=version,
            **parts,
        )  # fmt: skip
        return output.reshape(len(qkv), -1)

    return attend


def _triton(scale: float) -> Attend:
    from vllm.v1.attention.ops.triton_prefill_attention import context_attention_fwd

    def attend(qkv: Tensor, offsets: Tensor, lengths: Sequence[int]) -> Tensor:
        output = torch.empty_like(qkv[:, 0], memory_format=torch.contiguous_format)
        context_attention_fwd(
            qkv[:, 0], qkv[:, 1], qkv[:, 2], output, b_start_loc=offsets[:-1], b_seq_len=offsets[1:] - offsets[:-1],
            max_input_len=max(lengths), is_causal=False, softmax_scale=scale,
        )  # fmt: skip
        return output.view(len(qkv), -1)

    return attend


def _sdpa(scale: float) -> Attend:
    def attend(qkv: Tensor, offsets: Tensor, lengths: Sequence[int]) -> Tensor:
        outputs = []
        for crop in qkv.split(list(lengths)):
            q, k, v = crop.permute(1, 2, 0, 3).unsqueeze(1)  # each (1, H, n, D)
            outputs.append(F.scaled_dot_product_attention(q, k, v, scale=scale)[0].transpose(0, 1))
        return torch.cat(outputs).reshape(len(qkv), -1)

    return attend


def _operations(device: torch.device) -> Any:
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from pipelines.recognize import tower_triton

        return tower_triton
    return tower_plain


def _norm(module: Any) -> Norm:
    return module.weight, module.bias, module.eps


def _is_tanh_gelu(mlp: Any) -> bool:
    return bool(mlp.config.hidden_act == "gelu_pytorch_tanh")


def _runs(patches: Sequence[Tensor]) -> Iterator[tuple[torch.dtype, list[Tensor]]]:
    run: list[Tensor] = []
    for p in patches:
        if run and p.dtype != run[0].dtype:
            yield run[0].dtype, run
            run = []
        run.append(p)
    if run:
        yield run[0].dtype, run
