"""Bench `layout`: what PP-DocLayoutV2/V3 of the true shape (random weights) costs a page, by batch.

Invariant: the engine that is timed is the pipeline's own, from page pixels to regions; on a card, kernels and waits of one
batch are counted by PyTorch's profiler in a run of its own, which is not among those timed.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import typer

from jobs.benches.base import Figures
from pipelines.config import load
from pipelines.layout.labels import OFFICIAL_LABELS
from pipelines.layout.transformers_engine import TransformersLayout
from pipelines.schema import RasterPage

_WAITS = ("aten::item", "aten::_local_scalar_dense", "aten::nonzero", "cudaStreamSynchronize", "cudaDeviceSynchronize")


def layout(
    kind: Annotated[Literal["v2", "v3"], typer.Option(help="PP-DocLayoutV2 or V3")] = "v3",
    batches: Annotated[str, typer.Option(help="pages at once, a list")] = "1,2,4",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    rounds: Annotated[int, typer.Option(help="batches timed, of each size")] = 8,
    threads: Annotated[int, typer.Option(help="on a CPU")] = 1,
) -> Figures:
    """What layout costs a page, on a GPU or on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_layout(Path(folder), kind)
        options = [f"layout.model_dir={folder}", f"layout.dtype={dtype}", f"layout.device={device}", f"layout.threads={threads}"]
        config = load(settings=["layout.engine=transformers", *options])
        engine = TransformersLayout(config.layout, config.paddleocr_vl)
        figures = Figures("layout", {"model": f"PP-DocLayout{kind.upper()}", "parameters": parameters, "dtype": dtype})
        page = RasterPage(np.random.default_rng(0).integers(0, 256, (1684, 1191, 3), dtype=np.uint8), 144, 595.3, 841.9, ())
        for size in (int(text) for text in batches.split(",")):
            figures.rows.append(
                {"pages at once": size} | _timed(engine, [page] * size, rounds) | _profiled(engine, [page] * size)
            )
            print(figures.rows[-1], flush=True)
    return figures


def _timed(engine: TransformersLayout, pages: list[RasterPage], rounds: int) -> dict[str, Any]:
    engine.detect(pages)
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        engine.detect(pages)
        took.append(time.perf_counter() - began)
    each = median(took) / len(pages)
    return {"ms a page": round(each * 1000, 1), "pages/s": round(1 / each, 1)}


def _profiled(engine: TransformersLayout, pages: list[RasterPage]) -> dict[str, Any]:
    """Of one batch on a card: milliseconds of kernels a page, how many, and operations that make the host wait."""
    import torch

    if engine._model.device.type != "cuda":
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        engine.detect(pages)
        torch.cuda.synchronize()
    kernels = [event for event in found.events() if event.device_type.name == "CUDA"]
    return {
        "kernel ms a page": round(sum(event.device_time for event in kernels) / 1000 / len(pages), 2),
        "kernels": len(kernels),
        "waits": sum(event.name in _WAITS for event in found.events()),
    }


def write_layout(folder: Path, kind: str) -> int:
    """A checkpoint of the true shape with random weights; how many they are."""
    import transformers

    name = f"PPDocLayout{kind.upper()}"
    sizes: dict[str, Any] = {"num_labels": len(OFFICIAL_LABELS)}
    if kind == "v2":
        sizes |= {"class_thresholds": [0.5] * len(OFFICIAL_LABELS), "class_order": list(range(len(OFFICIAL_LABELS)))}
    model = getattr(transformers, f"{name}ForObjectDetection")(getattr(transformers, f"{name}Config")(**sizes)).eval()
    model.save_pretrained(folder)
    processor = {
        "image_mean": [0, 0, 0], "image_std": [1, 1, 1], "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
        "size": {"height": 800, "width": 800},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "inference.yml").write_text("label_list:\n" + "".join(f"- {label}\n" for label in OFFICIAL_LABELS))
    return sum(weight.numel() for weight in model.parameters())
