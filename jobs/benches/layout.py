"""Bench `layout`: what PP-DocLayoutV2/V3 of the true shape (random weights) costs a page, by batch.

Invariant: the engine that is timed is the pipeline's own, from page pixels to regions; on a card, kernels and waits of one
call are counted by PyTorch's profiler in a run of its own, which is not among those timed.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections.abc import Sequence
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

_WAITS = (
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
)


def layout(
    kind: Annotated[Literal["v2", "v3"], typer.Option(help="PP-DocLayoutV2 or V3")] = "v3",
    batches: Annotated[str, typer.Option(help="pages of a micro-batch, a list")] = "1,2,4",
    graph: Annotated[str, typer.Option(help="layout.cuda_graph: off, auto, a list")] = "off,auto",
    passing: Annotated[str, typer.Option(help="regions a page over the threshold: a number, or all, a list")] = "all,20",
    pages: Annotated[int, typer.Option(help="in one call, as a block of the pipeline has them")] = 16,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    rounds: Annotated[int, typer.Option(help="calls timed, of each kind")] = 8,
    threads: Annotated[int, typer.Option(help="on a CPU")] = 1,
    check: Annotated[bool, typer.Option(help="instead: what graphs give against what the network gives without")] = False,
) -> Figures:
    """What layout costs a page, on a GPU or on the CPU."""
    given = noise(pages)
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_layout(Path(folder), kind)
        options = [f"layout.dtype={dtype}", f"layout.device={device}", f"layout.threads={threads}"]
        figures = Figures("layout", {"model": f"PP-DocLayout{kind.upper()}", "parameters": parameters, "dtype": dtype})
        if check:
            figures.rows += compared(Path(folder), *options)
            return figures
        for size, use in itertools.product(batches.split(","), graph.split(",")):
            engine = engine_of(Path(folder), f"layout.batch_pages={size}", f"layout.cuda_graph={use}", *options)
            for number in passing.split(","):
                over = let_pass(engine, given, None if number == "all" else int(number))
                row = {"micro-batch": int(size), "graph": use, "over the threshold a page": over}
                took = timed(engine, given, rounds)
                row["graph"] = use if engine._model.graphed or use == "off" else "none could be made"
                figures.rows.append(row | took | _profiled(engine, given))
                print(figures.rows[-1], flush=True)
    return figures


def engine_of(folder: Path, *settings: str) -> TransformersLayout:
    config = load(settings=["layout.engine=transformers", f"layout.model_dir={folder}", *settings])
    return TransformersLayout(config.layout, config.paddleocr_vl)


def noise(pages: int) -> list[RasterPage]:
    """Pages of A4 at 144 dpi, no two alike."""
    drawn = np.random.default_rng(0)
    return [RasterPage(drawn.integers(0, 256, (1684, 1191, 3), dtype=np.uint8), 144, 595.3, 841.9, ()) for _ in range(pages)]


def let_pass(engine: TransformersLayout, pages: Sequence[RasterPage], passing: int | None) -> float:
    """Moves the classifier's bias so that so many rows a page (None: all) are over the threshold; how many then are, in the mean.

    With random weights it is chance how many are.
    """
    import torch

    cut = engine._post.mask_cut
    scores = np.sort(np.concatenate([found.rows[:, 1] for found in _found(engine, pages)]).astype(np.float64))[::-1]
    kept = len(scores) if passing is None else passing * len(pages)
    between = float(scores[kept - 1 : kept + 1].mean()) if kept < len(scores) else float(scores[-1]) * 0.99
    heads = engine._model.network.model.decoder.class_embed
    last = heads[-1] if isinstance(heads, torch.nn.ModuleList) else heads
    with torch.inference_mode():
        last.bias += math.log(cut / (1 - cut)) - math.log(between / (1 - between))
    return round(float(np.mean([(found.rows[:, 1] > cut).sum() for found in _found(engine, pages)])), 1)


def _found(engine: TransformersLayout, pages: Sequence[RasterPage]) -> list[Any]:
    network = engine._model
    starts = range(0, len(pages), network.batch_pages)
    batches = ([page.pixels for page in pages[start : start + network.batch_pages]] for start in starts)
    return [found for batch in batches for found in network.end(network.begin(batch, engine._post.mask_cut, outlines=True))]


def compared(folder: Path, *settings: str) -> list[dict[str, Any]]:
    """Batches of 1 to 4 pages and calls of several batches, by graphs and without; a batch of three goes through the graph of
    four, and kernels round by the size of their batch, so that its like is four pages without a graph."""
    eager, graphs = (engine_of(folder, f"layout.cuda_graph={use}", *settings) for use in ("off", "auto"))
    given = noise(23)
    rows = []
    for start, count in ((0, 1), (1, 2), (3, 3), (6, 4), (10, 1), (11, 3), (14, 4), (2, 9)):
        pages = given[start : start + count]
        like = given[start : start + 4] if count == 3 else pages
        pairs = list(zip(_found(eager, like), _found(graphs, pages), strict=False))
        apart = [np.abs(a.rows - b.rows).max(axis=0) for a, b in pairs]
        masks = [(a.masks, b.masks) for a, b in pairs if a.masks is not None]
        rows.append(
            {
                "pages": count,
                "graph": graphs._model.graphed,
                "score: most apart": float(max(x[1] for x in apart)),
                "box, pixels": float(max(x[2:6].max() for x in apart)),
                "ranks that differ": int(sum((a.rows[:, 6] != b.rows[:, 6]).sum() for a, b in pairs)),
                "mask points that differ": int(sum((a[i] != b[i]).sum() for a, b in masks for i in range(len(a)))),
                "regions equal": eager.detect(like)[:count] == graphs.detect(pages),
            }
        )
        print(rows[-1], flush=True)
    return rows


def timed(engine: TransformersLayout, pages: list[RasterPage], rounds: int) -> dict[str, Any]:
    """The median of so many calls, after one that is not counted."""
    engine.detect(pages)
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        engine.detect(pages)
        took.append(time.perf_counter() - began)
    each = median(took) / len(pages)
    return {"ms a page": round(each * 1000, 1), "pages/s": round(1 / each, 1)}


def _profiled(engine: TransformersLayout, pages: list[RasterPage]) -> dict[str, Any]:
    """Of one call on a card: milliseconds of kernels a page, how many, and operations that make the host wait."""
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
        "kernels a page": round(len(kernels) / len(pages)),
        "waits": sum(event.name in _WAITS for event in found.events()),
    }


def write_layout(folder: Path, kind: str) -> int:
    """A checkpoint of the true shape with random weights; how many they are."""
    import torch
    import transformers

    torch.manual_seed(7)
    name = f"PPDocLayout{kind.upper()}"
    sizes: dict[str, Any] = {"num_labels": len(OFFICIAL_LABELS)}
    if kind == "v2":
        orders = transformers.PPDocLayoutV2Config().reading_order_config.num_classes
        order = [label % orders for label in range(len(OFFICIAL_LABELS))]
        sizes |= {"class_thresholds": [0.5] * len(OFFICIAL_LABELS), "class_order": order}
    model = getattr(transformers, f"{name}ForObjectDetection")(getattr(transformers, f"{name}Config")(**sizes)).eval()
    model.save_pretrained(folder)
    processor = {
        "image_mean": [0, 0, 0], "image_std": [1, 1, 1], "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
        "size": {"height": 800, "width": 800},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "inference.yml").write_text("label_list:\n" + "".join(f"- {label}\n" for label in OFFICIAL_LABELS))
    return sum(weight.numel() for weight in model.parameters())
