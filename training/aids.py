"""Training aids that know what synthetic pictures show: thrown away when training ends.

A small decoder needs long to find out that it must look along the line, and a tower gets little from it until then. So
the tower is told which characters each patch shows, and the decoder where the next one stands. Both cost nothing later.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.batches import SLOTS
from training.forward import OnDevice

COLUMNS, ROWS = 64, 24  # of merged tokens; further ones share the last class


class Aids(nn.Module):
    """Three small heads: characters from patch features, the same from merged tokens, places from the decoder."""

    def __init__(self, vision_width: int, text_width: int, classes: int, merge: int = 2) -> None:
        super().__init__()
        self._classes = classes
        self.patch = nn.Linear(vision_width, SLOTS * classes)
        self.token = nn.Linear(text_width, merge**2 * SLOTS * classes)
        self.column = nn.Linear(text_width, COLUMNS)
        self.row = nn.Linear(text_width, ROWS)

    def forward(self, batch: OnDevice, patches: Tensor, merged: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Losses by name."""
        marks = batch.marks.long()
        of_patch = marks.flatten().masked_fill(marks.flatten() == 255, -100)
        by_token = marks[batch.merged].flatten()
        nowhere = (batch.image_at == len(batch.ids))[:, None].expand(-1, by_token.numel() // len(batch.image_at)).flatten()
        by_token = by_token.masked_fill((by_token == 255) | nowhere, -100)
        column = batch.places[:, 0].long().clamp(max=COLUMNS - 1)
        row = batch.places[:, 1].long().clamp(max=ROWS - 1)
        return {
            "patch": F.cross_entropy(self.patch(patches).view(-1, self._classes).float(), of_patch),
            "token": F.cross_entropy(self.token(merged).view(-1, self._classes).float(), by_token),
            "column": F.cross_entropy(self.column(state).float(), column.masked_fill(column < 0, -100)),
            "row": F.cross_entropy(self.row(state).float(), row.masked_fill(row < 0, -100)),
        }


@torch.no_grad()
def start(model: nn.Module) -> None:
    """First weights for narrow layers: transformers' 0.02 leaves a model of this width stuck."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            gain = 0.5 if name.endswith(("o_proj", "out_proj", "down_proj", "fc2")) else 1.0
            nn.init.normal_(module.weight, 0.0, gain / module.in_features**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            kernel = torch.randn_like(module.weight[:, :1])
            kernel -= kernel.mean((1, 2, 3), keepdim=True)  # blind to the colour of the paper
            module.weight.copy_((kernel * 2 / (3 * module.kernel_size[0])).expand_as(module.weight))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.2 if "position" in name else 0.5)
