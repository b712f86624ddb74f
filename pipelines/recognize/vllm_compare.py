"""A checkpoint tried on the specimen pages, by the packed path and by upstream's: does it give the same, and can it read?

Invariant: one engine, one set of weights; the two paths differ in the code that makes pixels and features of a crop, and in
nothing else. Runs in a process of its own (vLLM's engine inside it), which ends with what it took of the card.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import Config, load
from pipelines.errors import ConfigError
from pipelines.recognize.base import Crop
from pipelines.recognize.checkpoint import format_of
from pipelines.recognize.pack import PatchFormat, normalise, pack
from pipelines.recognize.specimen import specimens

EQUAL_SHARE = 0.9  # of answers, in half precision: two tokens may nearly tie; in float32 all must be equal
PIXELS = 1e-6


@dataclass(slots=True, frozen=True)
class Comparison:
    """
    Attributes:
        pixels: largest difference between patches packed and normalised here and the checkpoint's own processor's.
        embeddings: norm of the difference between packed and upstream features over upstream's; None: no packed tower ran.
        tolerance: of `embeddings`, for the weights' type.
        equal: answers that are the same token by token.
        refusal: why the packed tower did not run.
    """

    crops: int
    pixels: float
    embeddings: float | None
    tolerance: float
    equal: int
    exact_needed: bool
    refusal: str | None
    answers: tuple[str, ...]
    truths: tuple[str, ...]
    tasks: tuple[str, ...]

    def problems(self) -> list[str]:
        """What speaks against the packed path; empty: it may run."""
        found = []
        if self.pixels > PIXELS:
            found.append(f"patches differ from the checkpoint's processor's by {self.pixels:.3g}")
        if self.embeddings is not None and self.embeddings > self.tolerance:
            found.append(f"features differ from upstream's by {self.embeddings:.2g}, {self.tolerance:g} is allowed")
        if self.equal < self.crops * (1.0 if self.exact_needed else EQUAL_SHARE):
            found.append(f"only {self.equal} of {self.crops} answers are upstream's, token by token")
        return found

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, given: dict[str, Any]) -> Comparison:
        """What `as_dict` gave, after a way through JSON."""
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return cls(**plain)


def compare(model: Path, config: Config) -> Comparison:
    """
    Raises:
        ConfigError, EngineUnavailable: as the engine's start does.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the model must be reachable from here
    asked = [pair for page in specimens() for pair in page.crops(config.paddleocr_vl)]
    crops, truths = [crop for crop, _ in asked], tuple(truth for _, truth in asked)
    engine = _engine(model, config)
    embeddings, tolerance, refusal, dtype = engine.apply_model(_Features(crops, PatchFormat.of_directory(model)))[0]
    packed = _answers(engine, model, crops)
    engine.apply_model(_by_upstream)
    upstream = _answers(engine, model, crops)
    equal = sum(ours[1] == theirs[1] for ours, theirs in zip(packed, upstream, strict=True))
    return Comparison(
        len(crops), _pixels(model, crops), embeddings, tolerance, equal, dtype == "float32", refusal,
        tuple(text for text, _ in packed), truths, tuple(crop.task for crop in crops),
    )  # fmt: skip


def _engine(model: Path, config: Config) -> Any:
    from pipelines.recognize import vllm_engine

    os.environ.update({k: os.environ.get(k, v) for k, v in vllm_engine._ENVIRONMENT.items()})
    try:
        from vllm import LLM
    except ModuleNotFoundError as error:
        raise ConfigError(f"reading with a model: {error}: pip install 'pagemill[gpu]', or --constants-only") from error

    arguments = vllm_engine._arguments(config, model) | {"enforce_eager": True, "max_num_seqs": 16}
    arguments.setdefault("kv_cache_memory_bytes", 1 << 29)
    return LLM(**arguments)


@dataclass(slots=True, frozen=True)
class _Features:
    """Run inside the engine, on its model: how far the packed tower's features are from upstream's."""

    crops: Sequence[Crop]
    form: PatchFormat

    def __call__(self, model: Any) -> tuple[float | None, float, str | None, str]:
        import torch

        from pipelines.recognize.vllm_model import _TOLERANCE

        dtype = model.visual.dtype
        tower = model.tower()
        if tower is None:
            return None, _TOLERANCE.get(dtype, 0.0), model.refusal, str(dtype).removeprefix("torch.")
        cut = [
            pack(c.pixels, c.min_pixels, c.max_pixels, self.form.patch, self.form.merge, self.form.resample) for c in self.crops
        ]
        patches = [torch.from_numpy(each.patches).to(model.visual.device) for each in cut]
        grids = [each.grid for each in cut]
        with torch.inference_mode():
            pairs = zip(tower.encode(patches, grids), model.encode_upstream(patches, grids), strict=True)
            apart = max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs)
        return apart, _TOLERANCE[dtype], None, str(dtype).removeprefix("torch.")


def _by_upstream(model: Any) -> None:
    model.refusal, model._tower = "it is being compared with upstream's", None


def _answers(engine: Any, model: Path, crops: Sequence[Crop]) -> list[tuple[str, tuple[int, ...]]]:
    from PIL import Image
    from vllm import SamplingParams

    chat = format_of(model)
    prompts = [
        {
            "prompt": chat.prompt(crop.prompt), "multi_modal_data": {"image": Image.fromarray(crop.pixels)},
            "mm_processor_kwargs": {"min_pixels": crop.min_pixels, "max_pixels": crop.max_pixels},
        }
        for crop in crops
    ]  # fmt: skip
    outputs = engine.generate(prompts, SamplingParams(temperature=0.0, max_tokens=512), use_tqdm=False)
    return [(output.outputs[0].text, tuple(output.outputs[0].token_ids)) for output in outputs]


def _pixels(model: Path, crops: Sequence[Crop]) -> float:
    from PIL import Image
    from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil

    form, processor = PatchFormat.of_directory(model), PaddleOCRVLImageProcessorPil.from_pretrained(model)
    worst = 0.0
    for crop in crops:
        size = {"shortest_edge": crop.min_pixels, "longest_edge": crop.max_pixels}
        theirs = processor(images=[Image.fromarray(crop.pixels)], size=size, return_tensors="np")["pixel_values"]
        ours = normalise(pack(crop.pixels, crop.min_pixels, crop.max_pixels, form.patch, form.merge, form.resample).patches, form)
        worst = max(worst, float(np.abs(np.asarray(theirs, np.float32).reshape(ours.shape) - ours).max()))
    return worst


def main(model: str, conf: str, result: str) -> None:
    """`python -m pipelines.recognize.vllm_compare MODEL CONF RESULT`: the comparison as JSON."""
    found = compare(Path(model), load([conf]))
    Path(result).write_text(json.dumps(found.as_dict(), ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
