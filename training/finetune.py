"""Full fine-tuning of a PaddleOCR-VL on a JSONL file: what `pagemill finetune` runs, on one device or, by Ray Train, on several.

Invariant: nothing is trained on a file with a problem in it; the result is a checkpoint directory in the hub's layout, and
what its files could not be had from is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import config as configuration
from pipelines.errors import ConfigError
from pipelines.recognize.pack import PatchFormat
from training import sft
from training.batches import Capacity
from training.dataset import Conversations, Dataset, measured
from training.recipe import Recipe
from training.sft import Problem

Log = Callable[[str], None]


@dataclass(slots=True, frozen=True)
class Job:
    """What is asked for; plain values, so that it travels to other machines."""

    data: Path
    output: Path
    model: Path  # the weights to begin from
    recipe: Recipe
    evaluation: Path | None = None
    base_model: Path | None = None  # a released checkpoint, for files that `model` lacks
    log: Log = print


class BadData(ConfigError):
    """The training file has problems; the message lists the first of them, each with its line."""


def load_data(path: Path, job: Job, shuffled: bool) -> Dataset:
    """Reads, checks and measures a file.

    Raises:
        BadData: with every problem's line.
    """
    found = sft.check(path)
    _refuse(path, found.problems)
    shipped = configuration.load().paddleocr_vl
    recipe = job.recipe
    least, most = recipe.min_pixels or shipped.min_pixels, recipe.max_pixels or shipped.max_pixels
    conversations = Conversations(job.model, path.parent, least, most, PatchFormat.of_directory(job.model))
    vision = json.loads((job.model / "config.json").read_text("utf-8"))["vision_config"]
    side = int(vision["image_size"]) // int(vision["patch_size"])
    capacity = Capacity(
        recipe.max_patches, recipe.max_seq_len, 8 * recipe.packing_size, max(recipe.max_seq_len, recipe.max_patches)
    )
    sizes, problems = measured(found.records, conversations, capacity)
    _refuse(path, problems)
    return Dataset(found.records, sizes, conversations, recipe, capacity, side, shuffled)


def _refuse(path: Path, problems: list[Problem]) -> None:
    if problems:
        raise BadData(f"{path} has {len(problems)} problems:\n  " + "\n  ".join(sft.problems_text(problems)))


def complete_model(job: Job) -> Job:
    """The job with a model directory that has all files: what is missing comes from `base_model` and is named.

    Raises:
        ConfigError: there is no config.json or no weights.
    """
    from training.save import complete

    if not (job.model / "config.json").is_file() or not list(job.model.glob("*.safetensors")):
        raise ConfigError(f"{job.model}: no config.json or no *.safetensors: not a checkpoint directory")
    if job.base_model is not None:
        copied = complete(job.model, job.base_model, job.output / "start")
        if copied:
            job.log(f"{job.model} lacks {', '.join(copied)}: taken from {job.base_model}")
            return Job(job.data, job.output, job.output / "start", job.recipe, job.evaluation, job.base_model, job.log)
    return job


def finetune(job: Job) -> dict[str, dict[str, float]]:
    """Trains on this process's device; returns the evaluation before and after (empty without an evaluation file)."""
    from training.loop import Peers

    return train(job, Peers())


def train(job: Job, peers: Any) -> dict[str, dict[str, float]]:
    """What each worker does (`training.loop.Peers` says which it is); the first one evaluates, saves and reports."""
    import torch

    from training.evaluate import score
    from training.forward import PackedModel
    from training.loop import Trainer, batches
    from training.save import load_model, save_checkpoint, stored_dtype

    recipe = job.recipe
    data = load_data(job.data, job, shuffled=True)
    held = load_data(job.evaluation, job, shuffled=False) if job.evaluation else None
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(recipe.seed)
    model = load_model(job.model).to(device)
    form, dtype = data.conversations.form, stored_dtype(job.model)
    flash = device.type == "cuda" and recipe.compute_type == "bf16"
    packed = PackedModel(model, form.mean, form.std, data.capacity.longest, recipe.compiled, flash, recipe.recompute).to(device)
    steps = data.steps(peers.world)

    def save(trained: Any, folder: Path) -> None:
        save_checkpoint(trained, folder, job.model, dtype)

    folder = job.output / "training"
    trainer = Trainer(packed, recipe, data, steps, folder, save, device, log=job.log, peers=peers)

    def evaluate(of: PackedModel) -> dict[str, float]:
        assert held is not None
        found: dict[str, float] = score(of, batches(held, range(held.once()), 0), device, trainer.mixed).rates()
        return found

    rates: dict[str, dict[str, float]] = {}
    first = peers.rank == 0
    if held is not None and first:
        trainer.evaluate = evaluate
        rates["before"] = evaluate(packed)
        job.log("before: " + _words(rates["before"]))
    if first:
        job.log(f"{len(data.records)} samples, {data.once()} packed sequences an epoch, {steps} steps on {peers.world} devices")
    trainer.run()
    if not first:
        return rates
    missing = save_checkpoint(model, job.output, job.model, dtype)
    if missing:
        job.log(f"the result lacks {', '.join(missing)}: give --base-model the released checkpoint to have them copied")
    if held is not None:
        rates["after"] = evaluate(packed)
        job.log("after: " + _words(rates["after"]))
    report = {"recipe": recipe.model_dump(), "steps": steps, "samples": len(data.records), "evaluation": rates}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return rates


def _words(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in rates.items())
