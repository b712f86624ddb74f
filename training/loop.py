"""The training loop: packed batches in, checkpoints out.

Invariant: a run that is stopped and resumed at a checkpoint takes the same steps as one that was not: batches are a
function of the step's number, and optimizer, aids and random state are in the checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from training.aids import Aids
from training.batches import IGNORE, Batch
from training.forward import OnDevice, PackedModel
from training.recipe import Recipe

Log = Callable[[str], None]


class Source(Protocol):
    """Where batches come from; called in worker processes."""

    def batch(self, number: int) -> Batch: ...


@dataclass(slots=True, frozen=True)
class Peers:
    """The other devices of this training."""

    rank: int = 0
    world: int = 1

    def total(self, count: int, device: torch.device) -> int:
        """The sum of a number over all devices."""
        if self.world == 1:
            return count
        held = torch.tensor(count, device=device)
        torch.distributed.all_reduce(held)
        return int(held.item())

    def sum(self, parameters: Sequence[Tensor]) -> None:
        """Adds up gradients of all devices."""
        if self.world == 1:
            return
        flat = torch._utils._flatten_dense_tensors([p.grad for p in parameters if p.grad is not None])
        torch.distributed.all_reduce(flat)
        grads = [p.grad for p in parameters if p.grad is not None]
        for grad, part in zip(grads, torch._utils._unflatten_dense_tensors(flat, grads), strict=True):
            grad.copy_(part)


class _Numbered(torch.utils.data.Dataset):
    """Batches by number, as arrays that cross processes in shared memory."""

    def __init__(self, source: Source, numbers: Sequence[int], shared: bool) -> None:
        self._source, self._numbers, self._shared = source, numbers, shared

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self._source.batch(self._numbers[index])
        arrays = {f.name: getattr(batch, f.name) for f in fields(batch)}
        if self._shared:
            return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}
        return arrays


def _as_is(item: Any) -> Any:
    return item


def batches(source: Source, numbers: Sequence[int], workers: int) -> Iterator[Batch]:
    """Batches in the order of their numbers, made ahead by `workers` processes."""
    roomy = Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 4 << 30
    data = _Numbered(source, numbers, shared=roomy and workers > 0)
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=workers, collate_fn=_as_is, prefetch_factor=3 if workers else None
    )
    for item in loader:
        yield Batch(**{k: v.numpy() if isinstance(v, Tensor) else v for k, v in item.items()})


@dataclass(slots=True)
class Losses:
    """Of one step, still on the device."""

    said: Tensor  # mean over the answers' tokens
    aids: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Trainer:
    packed: PackedModel
    recipe: Recipe
    source: Source
    steps: int
    folder: Path  # checkpoints and curves
    save: Callable[[Any, Path], None]  # writes the model as a checkpoint directory
    device: torch.device
    log: Log = print
    aids: Aids | None = None
    aid_weight: Callable[[float], float] | None = None  # by share of training done
    evaluate: Callable[[PackedModel], dict[str, float]] | None = None
    peers: Peers = field(default_factory=Peers)
    stop_after_s: float | None = None  # ends early, with a checkpoint

    def run(self) -> dict[str, float]:
        """Trains from the newest checkpoint in `folder`, or from the start, to the last step; returns the last losses."""
        parameters = list(self.packed.model.parameters()) + (list(self.aids.parameters()) if self.aids else [])
        self._parameters = parameters
        optimizer = self._optimizer()
        first = self._resume(optimizer)
        writer = self._writer() if self.peers.rank == 0 else None
        started, shown = time.monotonic(), {}
        numbers = [
            n * self.peers.world + self.peers.rank for n in range(first * self._accumulated, self.steps * self._accumulated)
        ]
        feed = batches(self.source, numbers, self.recipe.dataloader_num_workers)
        for step in range(first, self.steps):
            losses = self._step(optimizer, feed, step)
            if (step + 1) % self.recipe.logging_steps == 0 or step + 1 == self.steps:
                shown = self._show(losses, step, first, started, writer)
            if self.evaluate is not None and self.recipe.eval_steps and (step + 1) % self.recipe.eval_steps == 0:
                self._evaluate(step, writer)
            late = self.stop_after_s is not None and time.monotonic() - started > self.stop_after_s
            if (step + 1) % self.recipe.save_steps == 0 or step + 1 == self.steps or late:
                self._checkpoint(optimizer, step + 1)
            if late:
                self.log(f"stopped after {self.stop_after_s:.0f} s at step {step + 1} of {self.steps}")
                break
        return shown

    @property
    def _accumulated(self) -> int:
        return self.recipe.gradient_accumulation_steps * self.recipe.batch_size

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW; norms, biases and embeddings are not decayed."""
        decayed = [p for p in self._parameters if p.ndim >= 2]
        plain = [p for p in self._parameters if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": self.recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        return torch.optim.AdamW(
            groups, lr=self.recipe.learning_rate, betas=(self.recipe.adam_beta1, self.recipe.adam_beta2),
            eps=self.recipe.adam_epsilon, fused=self.device.type == "cuda",
        )  # fmt: skip

    def _step(self, optimizer: torch.optim.Optimizer, feed: Iterator[Batch], step: int) -> Losses:
        rate = self.recipe.rate(step, self.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        parts = [next(feed) for _ in range(self._accumulated)]
        answered = [np.flatnonzero(part.labels != IGNORE) for part in parts]
        mine = sum(len(a) for a in answered)
        total = self.peers.total(mine, self.device)
        said: list[Tensor] = []
        aids: dict[str, Tensor] = {}
        for part, at in zip(parts, answered, strict=True):
            loss, aids = self._losses(part, at)
            said.append(loss.detach())
            whole = loss / total
            if aids and self.aid_weight is not None:
                weight = self.aid_weight(step / self.steps)
                whole = whole + weight * sum(aids.values()) / (len(parts) * self.peers.world)
            whole.backward()
        self.peers.sum(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.max_grad_norm)
        optimizer.step()
        return Losses(torch.stack(said).sum() / max(1, mine), {k: v.detach() for k, v in aids.items()})

    def _losses(self, batch: Batch, answered: np.ndarray[Any, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed cross entropy over the answers' tokens, and the aids' means."""
        on = OnDevice.of(batch, self.device)
        at = torch.from_numpy(answered).to(self.device, non_blocking=True)
        with self.mixed():
            patches, merged = self.packed.see(on)
            states = self.packed.say(on, merged)
            said = self.packed.loss(states[-1][at], on.labels[at])
            aids = self.aids(on, patches, merged, states[-2]) if self.aids is not None else {}
        return said, aids

    def mixed(self) -> Any:
        """bf16 where the device is quick at it."""
        if self.recipe.compute_type == "bf16" and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    # -- what is written ------------------------------------------------------------------------------------------------

    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"))

    def _show(self, losses: Losses, step: int, first: int, started: float, writer: Any) -> dict[str, float]:
        shown = {"loss": losses.said.item(), **{k: v.item() for k, v in losses.aids.items()}}
        pace = (step + 1 - first) / (time.monotonic() - started)
        if writer is not None:
            for name, value in shown.items():
                writer.add_scalar(f"train/{name}", value, step + 1)
            writer.add_scalar("train/learning_rate", self.recipe.rate(step, self.steps), step + 1)
            words = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
            self.log(f"step {step + 1}/{self.steps}  {words}  {pace:.2f} steps/s")
        return shown

    def _evaluate(self, step: int, writer: Any) -> None:
        assert self.evaluate is not None
        rates = self.evaluate(self.packed)
        if writer is not None:
            for name, value in rates.items():
                writer.add_scalar(f"eval/{name}", value, step + 1)
            self.log(f"step {step + 1}  held out: " + "  ".join(f"{name} {value:.3f}" for name, value in rates.items()))

    def _checkpoint(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """A directory that loads as a model, with what training needs to go on beside it."""
        if self.peers.rank != 0:
            return
        made = self.folder / f"checkpoint-{step}"
        unfinished = made.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        self.save(self.packed.model, unfinished)
        # exact weights: the checkpoint's own may be stored in half precision
        state = {
            "step": step, "optimizer": optimizer.state_dict(), "aids": self.aids.state_dict() if self.aids else None,
            "model": self.packed.model.state_dict(),
        }  # fmt: skip
        torch.save(state, unfinished / "training_state.pt")
        shutil.rmtree(made, ignore_errors=True)
        unfinished.rename(made)
        for old in checkpoints(self.folder)[: -self.recipe.save_total_limit]:
            shutil.rmtree(old)

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        found = checkpoints(self.folder)
        if not found:
            return 0
        state = torch.load(found[-1] / "training_state.pt", map_location=self.device, weights_only=True)
        self.packed.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if self.aids is not None and state["aids"] is not None:
            self.aids.load_state_dict(state["aids"])
        self.log(f"resumed at step {state['step']} from {found[-1].name}")
        return int(state["step"])


def checkpoints(folder: Path) -> list[Path]:
    """Finished ones, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if p.suffix != ".part" and (p / "training_state.pt").is_file()]
    return sorted(found, key=lambda p: int(p.name.partition("-")[2]))
