"""The vision tower's small operations as Triton kernels: `tower_plain`, operation by operation, in one pass over memory each.

These operations are bound by memory: at 16,384 patches and 1,152 channels each pass over the residual moves 38 MB, and
eager PyTorch makes 3 to 6 passes where one or two do. Invariant: arithmetic in float32, rounded where eager rounds, so
that each equals its plain form to the last bit or two. No autotuning: the first call of each compiles, and the tower
makes it while vLLM profiles memory. Counts are not specialised on: each new remainder would compile again.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_PAIRS = 1024  # of a program of `_rotate`, by 8 warps: 31 us at 11,100 patches on an H200; 512 by 4 32, 512 by 8 37, 256 by 4 36
_LANES = 4  # pairs that a thread of it moves at once: with one 40 us
_WARPS = 4  # of a row: `_add_norm` 29 us there, 8 warps 36 (on an H100, at 16,660 patches, 88 and 72)


@triton.jit
def _floats(patches, table, out, inside: tl.constexpr, area: tl.constexpr, width: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    byte = tl.load(patches + row * inside + at, mask=at < inside, other=0).to(tl.int32)
    value = tl.load(table + (at // area) * 256 + byte, mask=at < inside, other=0.0)
    tl.store(out + row * width + at, value, mask=at < width)


@triton.jit
def _normed(value, weight, bias, eps, at, live, channels: tl.constexpr):
    mean = tl.sum(value, 0) / channels
    centred = tl.where(live, value - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / channels + eps)
    gain = tl.load(weight + at, mask=live, other=0.0).to(tl.float32)
    shift = tl.load(bias + at, mask=live, other=0.0).to(tl.float32)
    return centred * scale * gain + shift


@triton.jit(do_not_specialize=["count"])
def _place(
    embedded, positions, where, count, weight, bias, out, eps, side: tl.constexpr, channels: tl.constexpr, block: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    live = at < channels
    y = tl.maximum(
        (tl.load(where + row).to(tl.float32) + 0.5) * (side / tl.load(where + 2 * count + row).to(tl.float32)) - 0.5, 0.0
    )
    x = tl.maximum(
        (tl.load(where + count + row).to(tl.float32) + 0.5) * (side / tl.load(where + 3 * count + row).to(tl.float32)) - 0.5, 0.0
    )
    top, left = y.to(tl.int32), x.to(tl.int32)
    bottom, right = tl.minimum(top + 1, side - 1), tl.minimum(left + 1, side - 1)
    down, across = y - top, x - left
    a = tl.load(positions + (top * side + left) * channels + at, mask=live, other=0.0).to(tl.float32)
    b = tl.load(positions + (top * side + right) * channels + at, mask=live, other=0.0).to(tl.float32)
    c = tl.load(positions + (bottom * side + left) * channels + at, mask=live, other=0.0).to(tl.float32)
    d = tl.load(positions + (bottom * side + right) * channels + at, mask=live, other=0.0).to(tl.float32)
    upper = a + across * (b - a)
    lower = c + across * (d - c)
    kind = embedded.dtype.element_ty
    position = (upper + down * (lower - upper)).to(kind).to(tl.float32)
    value = (tl.load(embedded + row * channels + at, mask=live, other=0.0).to(tl.float32) + position).to(kind)
    tl.store(embedded + row * channels + at, value, mask=live)
    normed = _normed(value.to(tl.float32), weight, bias, eps, at, live, channels)
    tl.store(out + row * channels + at, normed.to(kind), mask=live)


@triton.jit(do_not_specialize=["runs"])
def _rotate(qkv, cos, sin, runs, heads: tl.constexpr, half: tl.constexpr, lanes: tl.constexpr, block: tl.constexpr):
    """Runs of `lanes` neighbouring pairs of channels, numbered through patches, q and k, heads: none is wasted on a head of 72.

    A thread moves a run at once: 8 bytes of bf16 for 2.
    """
    run = tl.program_id(0) * block + tl.arange(0, block)
    each: tl.constexpr = half // lanes  # runs of a head
    lane = tl.arange(0, lanes)[None, :]
    live = (run < runs)[:, None]
    row = run // (2 * heads * each)
    inside = run % (2 * heads * each)
    angle = inside % each
    first = qkv + (row.to(tl.int64) * (6 * heads * each) + inside // each * (2 * each) + angle)[:, None] * lanes + lane
    c = tl.load(cos + (row * each + angle)[:, None] * lanes + lane, mask=live, other=0.0)
    s = tl.load(sin + (row * each + angle)[:, None] * lanes + lane, mask=live, other=0.0)
    a = tl.load(first, mask=live, other=0.0).to(tl.float32)
    b = tl.load(first + half, mask=live, other=0.0).to(tl.float32)
    tl.store(first, (a * c - b * s).to(qkv.dtype.element_ty), mask=live)
    tl.store(first + half, (b * c + a * s).to(qkv.dtype.element_ty), mask=live)


@triton.jit
def _add_norm(residual, update, weight, bias, out, eps, channels: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    live = at < channels
    value = tl.load(residual + row * channels + at, mask=live, other=0.0).to(tl.float32)
    value += tl.load(update + row * channels + at, mask=live, other=0.0).to(tl.float32)
    kind = residual.dtype.element_ty
    tl.store(residual + row * channels + at, value.to(kind), mask=live)
    normed = _normed(value.to(kind).to(tl.float32), weight, bias, eps, at, live, channels)
    tl.store(out + row * channels + at, normed.to(kind), mask=live)


@triton.jit
def _finish(residual, update, weight, bias, eps, weight2, bias2, eps2, target, out, channels: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    live = at < channels
    kind = residual.dtype.element_ty
    value = tl.load(residual + row * channels + at, mask=live, other=0.0).to(tl.float32)
    value += tl.load(update + row * channels + at, mask=live, other=0.0).to(tl.float32)
    once = _normed(value.to(kind).to(tl.float32), weight, bias, eps, at, live, channels).to(kind).to(tl.float32)
    twice = _normed(tl.where(live, once, 0.0), weight2, bias2, eps2, at, live, channels)
    tl.store(out + tl.load(target + row).to(tl.int64) * channels + at, twice.to(kind), mask=live)


def floats(patches: Tensor, table: Tensor, width: int) -> Tensor:
    count, inside, area = len(patches), patches[0].numel(), patches.shape[2] * patches.shape[3]
    out = torch.empty((count, width), dtype=table.dtype, device=patches.device)
    _floats[(count,)](patches, table, out, inside, area, width, triton.next_power_of_2(max(inside, width)), num_warps=4)
    return out


def place(embedded: Tensor, positions: Tensor, where: Tensor, norm: tuple[Tensor, Tensor, float]) -> Tensor:
    count, channels = embedded.shape
    out, side = torch.empty_like(embedded), int(len(positions) ** 0.5)
    _place[(count,)](
        embedded, positions, where, count, norm[0], norm[1], out, norm[2], side, channels, triton.next_power_of_2(channels),
        num_warps=_WARPS,
    )  # fmt: skip
    return out


def rotate_(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    count, _, heads, size = qkv.shape
    if count * heads * size >= 2**31:
        raise ValueError(f"{count} patches at once: indices are 32 bits")
    lanes = math.gcd(size // 2, _LANES)
    runs, block = count * heads * size // lanes, _PAIRS // lanes
    _rotate[(triton.cdiv(runs, block),)](qkv, cos, sin, runs, heads, size // 2, lanes, block, num_warps=8)


def add_norm_(residual: Tensor, update: Tensor, norm: tuple[Tensor, Tensor, float]) -> Tensor:
    count, channels = residual.shape
    out = torch.empty_like(residual)
    _add_norm[(count,)](residual, update, *norm[:2], out, norm[2], channels, triton.next_power_of_2(channels), num_warps=_WARPS)
    return out


def finish(
    residual: Tensor, update: Tensor, last: tuple[Tensor, Tensor, float], pre: tuple[Tensor, Tensor, float], target: Tensor
) -> Tensor:
    count, channels = residual.shape
    out = torch.empty_like(residual)
    _finish[(count,)](
        residual, update, *last, *pre, target, out, channels, triton.next_power_of_2(channels), num_warps=_WARPS
    )  # fmt: skip
    return out
