"""PaddleOCR-VL's forward pass over packed sequences: transformers' modules and weights, without its loops over pictures.

transformers 5 runs the vision tower's attention picture by picture and pads text; here all pictures and all texts of a
batch go through each layer at once, and shapes never change, so that torch.compile pays. Invariant: the numbers are
those of transformers' own forward on each example alone (held by a test), with position embeddings resampled as the
released models were trained (corners not aligned; transformers 5.19 aligns them).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from training.batches import Batch

LOSS_LOGITS, LEAST_ROWS = 1 << 27, 1024  # of one piece of the loss: 512 MiB in float32

Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int, bool], Tensor]


def flash_attention() -> Attention:
    """(n, heads, d) each, sequences end to end; CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    windows = "window_size" in inspect.signature(varlen_attn).parameters  # torch 2.10 has `is_causal` in its place

    def attend(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, causal: bool) -> Tensor:
        if windows:
            return varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(-1, 0) if causal else (-1, -1))
        return varlen_attn(q, k, v, bounds, bounds, longest, longest, is_causal=causal)

    return attend


def attend_by_padding(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, _longest: int, causal: bool) -> Tensor:
    """The same on any device: sequences are laid side by side, padded to the longest one present."""
    lengths = (bounds[1:] - bounds[:-1]).tolist()
    parts = [torch.nn.utils.rnn.pad_sequence(list(x.split(lengths)), batch_first=True).transpose(1, 2) for x in (q, k, v)]
    width = parts[0].shape[2]
    at = torch.arange(width, device=q.device)
    size = torch.tensor(lengths, device=q.device)
    seen = (at[None, :] < size[:, None].clamp(min=1))[:, None, None, :]
    if causal:
        seen = seen & (at[None, :] <= at[:, None])
    out = F.scaled_dot_product_attention(*parts, attn_mask=seen)
    return out.transpose(1, 2)[at[None, :] < size[:, None]]


@dataclass(slots=True)
class OnDevice:
    """A batch as tensors."""

    patches: Tensor
    cells: Tensor
    taps: Tensor
    tap_weights: Tensor
    patch_bounds: Tensor
    merged: Tensor
    image_at: Tensor
    ids: Tensor
    labels: Tensor
    positions: Tensor
    token_bounds: Tensor
    marks: Tensor
    places: Tensor
    sequence: Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> OnDevice:
        def move(array: np.ndarray[Any, Any]) -> Tensor:
            made = torch.from_numpy(array)
            return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made

        return cls(*(move(getattr(batch, name)) for name in cls.__slots__))


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates (n, heads, d) by (n, d) angles, first half against second half."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x * cos[:, None] + turned * sin[:, None]).to(x.dtype)


class PackedModel(nn.Module):
    """Wraps a `PaddleOCRVLForConditionalGeneration`; its parameters stay where they are."""

    def __init__(
        self,
        model: Any,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        longest: int,
        compiled: bool = False,
        flash: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._longest, self._recompute = longest, recompute
        self._attend = flash_attention() if flash else attend_by_padding
        config = model.config
        vision, text = config.vision_config, config.text_config
        self._vision_heads = vision.num_attention_heads
        self._heads, self._kv_heads = text.num_attention_heads, text.num_key_value_heads
        self._head_dim = text.head_dim
        dim = vision.hidden_size // vision.num_attention_heads
        theta = float((vision.rope_parameters or {}).get("rope_theta", 10000.0))
        self.register_buffer("_vision_turns", theta ** -(torch.arange(0, dim // 2, 2).float() / (dim // 2)), persistent=False)
        rope = text.rope_parameters
        turns = float(rope["rope_theta"]) ** -(torch.arange(0, self._head_dim, 2).float() / self._head_dim)
        self.register_buffer("_text_turns", turns, persistent=False)
        axes = torch.cat([torch.full((n,), i % 3) for i, n in enumerate(rope["mrope_section"])])
        self.register_buffer("_axes", axes, persistent=False)
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, 3, 1), persistent=False)
        self._stem: Callable[..., Tensor] = self._patch_layer
        self._vision_step: Callable[..., Tensor] = self._vision_layer
        self._text_step: Callable[..., Tensor] = self._text_layer
        if compiled:
            self._stem = torch.compile(self._patch_layer, dynamic=False)
            self._vision_step = torch.compile(self._vision_layer, dynamic=False)
            self._text_step = torch.compile(self._text_layer, dynamic=False)

    # -- the vision tower -----------------------------------------------------------------------------------------------

    def see(self, batch: OnDevice) -> tuple[Tensor, Tensor]:
        """Features of every patch (P, vision width), and of every merged token (M, text width)."""
        tower, projector = self.model.model.visual.vision_model, self.model.model.projector
        x = self._stem(tower.embeddings, batch.patches, batch.taps, batch.tap_weights)
        angles = (batch.cells[:, :, None].float() * self._vision_turns).flatten(1)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        for layer in tower.encoder.layers:
            x = self._through(self._vision_step, layer, x, cos, sin, batch.patch_bounds)
        x = tower.post_layernorm(x)
        merged = projector.pre_norm(x)[batch.merged].flatten(1)
        return x, projector.linear_2(F.gelu(projector.linear_1(merged)))

    def _patch_layer(self, embed: Any, patches: Tensor, taps: Tensor, weights: Tensor) -> Tensor:
        kernel = embed.patch_embedding.weight
        pixels = patches.view(len(patches), -1, kernel.shape[2] * kernel.shape[3])  # one channel (grey) or three
        pixels = (pixels.expand(-1, 3, -1).float() / 255 - self._mean) / self._std
        x = F.linear(pixels.flatten(1), kernel.flatten(1), embed.patch_embedding.bias)
        return x + (embed.position_embedding(taps) * weights[..., None]).sum(1)

    def _vision_layer(self, layer: Any, x: Tensor, cos: Tensor, sin: Tensor, bounds: Tensor) -> Tensor:
        attention, heads = layer.self_attn, self._vision_heads
        y = layer.layer_norm1(x)
        q, k, v = (part(y).unflatten(-1, (heads, -1)) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        mixed = self._attend(_turn(q, cos, sin), _turn(k, cos, sin), v, bounds, self._longest, False)
        x = x + attention.out_proj(mixed.flatten(1))
        return x + layer.mlp(layer.layer_norm2(x))

    # -- the language model ---------------------------------------------------------------------------------------------

    def say(self, batch: OnDevice, seen: Tensor) -> list[Tensor]:
        """Hidden states (T, width) after each layer; the last one normalised, ready for `lm_head`."""
        text = self.model.model.language_model
        x = text.embed_tokens(batch.ids)
        room = torch.cat((x, x.new_zeros(1, x.shape[1])))  # what stands nowhere goes into the last row
        x = room.index_copy(0, batch.image_at, seen.to(x.dtype))[:-1]
        angles = batch.positions[self._axes].T.float() * self._text_turns
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        states = []
        for layer in text.layers:
            x = self._through(self._text_step, layer, x, cos, sin, batch.token_bounds)
            states.append(x)
        states[-1] = text.norm(x)
        return states

    def _text_layer(self, layer: Any, x: Tensor, cos: Tensor, sin: Tensor, bounds: Tensor) -> Tensor:
        attention, dim, groups = layer.self_attn, self._head_dim, self._heads // self._kv_heads
        y = layer.input_layernorm(x)
        q = attention.q_proj(y).unflatten(-1, (self._heads, dim))
        k, v = (part(y).unflatten(-1, (self._kv_heads, dim)) for part in (attention.k_proj, attention.v_proj))
        k, v = _turn(k, cos, sin).repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        mixed = self._attend(_turn(q, cos, sin), k, v, bounds, self._longest, True)
        x = x + attention.o_proj(mixed.flatten(1))
        return x + layer.mlp(layer.post_attention_layernorm(x))

    def logits(self, state: Tensor) -> Tensor:
        return self.model.lm_head(state)

    def loss(self, state: Tensor, labels: Tensor) -> Tensor:
        """Summed cross entropy. In pieces, so that the logits of a large vocabulary never lie in memory all at once."""
        rows = max(LEAST_ROWS, LOSS_LOGITS // self.model.lm_head.out_features)
        parts = list(zip(state.split(rows), labels.split(rows), strict=True))
        if len(parts) == 1:
            return self._piece(state, labels)
        return torch.stack([checkpoint(self._piece, s, wanted, use_reentrant=False) for s, wanted in parts]).sum()

    def _piece(self, state: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(state).float(), labels, reduction="sum")

    def _through(self, step: Callable[..., Tensor], *given: Any) -> Tensor:
        """One layer; on the way back its inside is computed again where memory matters more than time."""
        if self._recompute and torch.is_grad_enabled():
            return checkpoint(step, *given, use_reentrant=False)
        return step(*given)
