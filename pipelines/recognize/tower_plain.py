"""The vision tower's small operations in plain PyTorch: what a CPU runs, and what `tower_triton` must equal.

Each rounds where upstream's chain of operations rounds, so that packing changes no result beyond the order of sums.
Shapes: N patches of all crops, C channels, H heads of D channels, S x S learned positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def floats(patches: Tensor, table: Tensor, width: int) -> Tensor:
    """uint8 (N, 3, p, p) -> (N, width) in the table's dtype: each byte's normalised value, zeros past 3*p*p.

    table: (3, 256), the value of each byte of R, G and B.
    """
    channel = patches.flatten(2)
    index = channel.int() + torch.arange(0, 768, 256, dtype=torch.int32, device=patches.device)[None, :, None]
    values = table.flatten().index_select(0, index.flatten()).view(len(patches), -1)
    return F.pad(values, (0, width - values.shape[1]))


def place(embedded: Tensor, positions: Tensor, where: Tensor, norm: tuple[Tensor, Tensor, float]) -> Tensor:
    """Adds the interpolated position to each patch embedding, in place, and returns its layer norm.

    embedded: (N, C). positions: (S * S, C). where: (4, N) int32: row, column, and the rows and columns of its crop.
    """
    side = int(len(positions) ** 0.5)
    near, far, weight = [], [], []
    for at, of in ((where[0], where[2]), (where[1], where[3])):
        source = ((at.float() + 0.5) * (side / of.float()) - 0.5).clamp_(min=0)  # bilinear, corners not aligned
        low = source.long()
        near.append(low)
        far.append((low + 1).clamp_(max=side - 1))
        weight.append((source - low)[:, None])

    def at_corner(row: Tensor, column: Tensor) -> Tensor:
        return positions[row * side + column].float()

    upper = torch.lerp(at_corner(near[0], near[1]), at_corner(near[0], far[1]), weight[1])
    lower = torch.lerp(at_corner(far[0], near[1]), at_corner(far[0], far[1]), weight[1])
    embedded.add_(torch.lerp(upper, lower, weight[0]).to(embedded.dtype))
    return F.layer_norm(embedded, embedded.shape[1:], *norm)


def rotate_(qkv: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotates q and k of (N, 3, H, D) in place, first half of D against second; cos and sin are (N, D/2) float32."""
    cos, sin = cos[:, None, None], sin[:, None, None]
    first, second = qkv[:, :2].float().chunk(2, -1)
    qkv[:, :2] = torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(qkv.dtype)


def add_norm_(residual: Tensor, update: Tensor, norm: tuple[Tensor, Tensor, float]) -> Tensor:
    """residual += update, in place; returns its layer norm (weight, bias, epsilon). All (N, C)."""
    residual.add_(update)
    return F.layer_norm(residual, residual.shape[1:], *norm)


def finish(
    residual: Tensor, update: Tensor, last: tuple[Tensor, Tensor, float], pre: tuple[Tensor, Tensor, float], target: Tensor
) -> Tensor:
    """The tower's last norm and the projector's first, rows moved so that patches of one token follow each other.

    target: (N,) int32, a permutation: the row at which each patch's result goes.
    """
    normed = F.layer_norm(add_norm_(residual, update, last), residual.shape[1:], *pre)
    moved = torch.empty_like(normed)
    moved[target.long()] = normed
    return moved
