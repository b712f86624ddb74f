"""How much a model reads right, without generating: a greedy answer is exact if and only if every token of the truth is
the most likely one after those before it, so one forward pass over the truth tells.

Invariant: numbers are of the weights as given, in float32 or bf16 as asked for; nothing is sampled or averaged over tries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.batches import IGNORE, Batch
from training.forward import OnDevice, PackedModel


@dataclass(slots=True)
class Score:
    exact: list[bool]  # per example, in order
    tasks: list[str]
    tokens: float  # share of right tokens
    loss: float  # mean cross entropy per token

    def rates(self) -> dict[str, float]:
        """Share of exact answers, of all and by task, and the means over tokens."""
        found = {"exact": sum(self.exact) / max(1, len(self.exact)), "tokens": self.tokens, "loss": self.loss}
        for task in sorted(set(self.tasks)):
            of_task = [hit for hit, name in zip(self.exact, self.tasks, strict=True) if name == task]
            found[f"exact {task}"] = sum(of_task) / len(of_task)
        return found


@torch.no_grad()
def score(packed: PackedModel, batches: Iterable[Batch], device: torch.device, mixed: Callable[[], Any] = nullcontext) -> Score:
    found = Score([], [], 0.0, 0.0)
    right = total = 0
    loss = 0.0
    for batch in batches:
        at = np.flatnonzero(batch.labels != IGNORE)
        with mixed():
            on = OnDevice.of(batch, device)
            _, merged = packed.see(on)
            logits = packed.logits(packed.say(on, merged)[-1][torch.from_numpy(at).to(device)]).float()
        labels = on.labels[torch.from_numpy(at).to(device)]
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        hit = (logits.argmax(-1) == labels).cpu().numpy()
        wrong = set(batch.sequence[at][~hit].tolist())
        found.exact += [number not in wrong for number in range(batch.examples)]
        found.tasks += batch.tasks
        right, total = right + int(hit.sum()), total + len(at)
    found.tokens, found.loss = right / max(1, total), loss / max(1, total)
    return found
