"""Trains the tests' small PaddleOCR-VL (`make fixture`): documents, model and recipes all come from here.

Three trainings make it: one from nothing, and two that each start with the last one's result, on more of what the first read
worst.

Invariant: the same recipe, seed and device kind give the same documents in the same order; what is printed at the end was
measured on pictures that training never drew, two faces of them on faces it never saw.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import recipe as recipes
from training import tiny
from training.batches import Capacity
from training.recipe import Recipe
from training.synth.faces import HELD_OUT
from training.synth.stream import CLASSES, CURRICULUM, SECOND, Stage, Stream

STORED = "float16"  # 11 bits of mantissa: at this size bfloat16 costs exactness


def stream_of(
    recipe: Recipe, checkpoint: Path, steps: int, fonts: Path | None, curriculum: tuple[Stage, ...] = CURRICULUM
) -> Stream:
    # a picture has at most max_pixels: 1,024 patches, 256 tokens and what is said of them
    capacity = Capacity(recipe.max_patches, recipe.max_seq_len, recipe.packing_size, 1024)
    side = tiny.VISION["image_size"] // 14
    return Stream(
        checkpoint, capacity, steps, recipe.seed, side, recipe.min_pixels or 0, recipe.max_pixels or 0, fonts, curriculum
    )


def untrained(folder: Path, seed: int) -> Any:
    """A model with first weights for its width."""
    import torch
    from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration

    from training.aids import start

    torch.manual_seed(seed)
    model = PaddleOCRVLForConditionalGeneration(PaddleOCRVLConfig.from_pretrained(folder)).float()
    start(model)
    return model


def evaluator(stream: Stream, count: int, device: Any, mixed: Callable[[], Any]) -> Callable[[Any], dict[str, float]]:
    """Exact rates by kind, on pictures drawn once."""
    from training.evaluate import score

    kinds: dict[str, list[Any]] = {kind: stream.held_out(kind, count) for kind in ("line", "paragraph", "table", "formula")}
    kinds |= {f"line {face.name}": stream.held_out("line", count // 2, (face,)) for face in HELD_OUT}

    def evaluate(packed: Any) -> dict[str, float]:
        return {kind: score(packed, drawn, device, mixed).rates()["exact"] for kind, drawn in kinds.items()}

    return evaluate


def train(
    out: Path,
    recipe: Recipe,
    fonts: Path | None = None,
    stop_after_s: float | None = None,
    count: int = 600,
    start: Path | None = None,
) -> dict[str, float]:
    """Writes checkpoints below `out`, and the finished fixture as `out/fixture`; returns its exact rates.

    Args:
        start: what the training before gave, for the second one and the third.
    """
    import torch

    from training.aids import Aids
    from training.forward import PackedModel
    from training.loop import Trainer
    from training.save import load_model, save_checkpoint

    begun = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    base = out / "base"
    tiny.build(base)
    model = (untrained(base, recipe.seed) if start is None else load_model(start)).to(device)
    stream = stream_of(recipe, base, recipe.max_steps, fonts, CURRICULUM if start is None else SECOND)
    packed = PackedModel(model, (0.5,) * 3, (0.5,) * 3, stream.capacity.longest, recipe.compiled, device.type == "cuda").to(
        device
    )
    aids = Aids(tiny.VISION["hidden_size"], tiny.TEXT["hidden_size"], len(CLASSES) + 1).to(device)

    def save(model: Any, folder: Path) -> None:
        save_checkpoint(model, folder, base, STORED)

    trainer = Trainer(
        packed, recipe, stream, recipe.max_steps, out, save, device, log=_log(begun), aids=aids,
        aid_weight=aid_weight if start is None else second_aid_weight, stop_after_s=stop_after_s,
    )  # fmt: skip
    evaluate = evaluator(stream, count, device, trainer.mixed)
    trainer.evaluate = evaluate
    trainer.run()
    with torch.no_grad():
        for parameter in model.parameters():  # what is measured is what is stored
            parameter.copy_(parameter.half().float())
    save(model, out / "fixture")
    return evaluate(packed)


def aid_weight(share: float) -> float:
    """The aids lead at first and fall silent at the end."""
    return max(0.02, 1.0 - share / 0.6)


def second_aid_weight(share: float) -> float:
    """Small type is still new to the tower, but the aids know nothing yet: they speak less, and end earlier."""
    return max(0.02, 0.3 * (1.0 - share / 0.5))


def _log(begun: float) -> Callable[[str], None]:
    def log(line: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {line}", flush=True)

    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path("conf/train/tiny.yaml"))
    parser.add_argument("--start", type=Path, help="folder of the result of the training before this one")
    parser.add_argument("--fonts", type=Path, help="folder of faces, where their packages are not installed")
    parser.add_argument("--stop-after", type=float, help="seconds; goes on from the checkpoint when called again")
    parser.add_argument("--set", nargs="*", default=[], help="key=value over the recipe")
    given = parser.parse_args()
    changes = dict(item.split("=", 1) for item in given.set)
    recipe, _ = recipes.load(given.recipe, changes)
    for name, rate in train(given.out, recipe, given.fonts, given.stop_after, start=given.start).items():
        print(f"exact, {name}: {rate:.3f}")


if __name__ == "__main__":
    main()
