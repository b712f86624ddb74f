"""Bench `tower`: patches a second of the vision tower by itself, with each attention that it knows, beside vLLM's own way.

Crops come in batches as an engine's step takes them, normalised on the card. Invariant: every way encodes the same crops, in
turns, and how far its embeddings are from vLLM's own, crop by crop, stands beside its speed; weights are random.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from jobs.benches.base import Figures, table
from jobs.benches.engine_profile import Profile
from jobs.benches.gpu_watch import GpuWatch
from jobs.benches.shape import write_shape
from jobs.benches.workloads import PATCH, Job, archive, grid, known

_PICKED, _OWN = "packed, as vLLM picks", "vLLM's own, crop by crop"

Grid = tuple[int, int, int]
Batch = tuple[list[Any], list[Grid]]  # patches of each crop, and its grid


def tower(
    boxes: Annotated[
        Path | None, typer.Option(help="block sizes of real pages, of `python -m jobs.benches.workloads`; else the known ones")
    ] = None,
    batches: Annotated[int, typer.Option(help="of crops, other ones in each")] = 12,
    crops: Annotated[int, typer.Option(help="of a batch: an engine's step takes some 40")] = 38,
    attention: Annotated[list[str] | None, typer.Option(help="TORCH_SDPA, TRITON_ATTN: forced, each in a row too")] = None,
    seconds: Annotated[float, typer.Option(help="of a reading, at least")] = 1.0,
    rounds: Annotated[int, typer.Option(help="of all ways, in turns")] = 3,
    dtype: Annotated[str, typer.Option(help="of the weights")] = "bfloat16",
    kernels: Annotated[
        bool, typer.Option(help="after the readings: what each kernel of the packed tower takes, in one pass of every batch")
    ] = False,
    tiny: Annotated[bool, typer.Option(help="a model of a few thousand weights, to try the bench without a GPU")] = False,
) -> Figures:
    """Patches a second of the packed vision tower alone."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model = build(write_shape(Path(folder) / "shape", tiny), dtype, device)
        work = _batches(_jobs(boxes, batches * crops), crops, device)
        ways = _ways(model, attention or [])
        expected = ways[_OWN](*work[0])
        apart = {name: _apart(way(*work[0]), expected) for name, way in ways.items()}
        with GpuWatch() as watch:
            found = _measured(ways, work, seconds, rounds, watch)
        took = _kernels(ways[_PICKED], work) if kernels else []
    sizes = [t * h * w for _, grids in work for t, h, w in grids]
    figures = Figures(
        "tower", {"crops": len(sizes), "of a batch": crops, "patches": sum(sizes), "longest": max(sizes), "rounds": rounds}
    )
    for name, readings in found.items():
        speeds = [speed for speed, _ in readings]
        row = {"way": name, "patches/s": round(statistics.median(speeds)), "each": " ".join(f"{speed:,.0f}" for speed in speeds)}
        figures.rows.append(row | {"apart": f"{apart[name]:.2g}"} | readings[-1][1])
    figures.notes.append(
        "apart: norm of the difference from vLLM's own embeddings over their norm, first batch; card: last round"
    )
    figures.notes += took
    return figures


def build(folder: Path, dtype: str, device: str = "cpu", seed: int = 0) -> Any:
    """A `PackedPaddleOCRVL` of a model folder's shape, built by vLLM's own classes in this process, outside any engine.

    Its vision part has random weights of a size at which every layer matters; the text model is not meant to be asked.
    """
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.torch_utils import set_default_torch_dtype

    from pipelines.recognize.vllm_model import OVERRIDES, PackedPaddleOCRVL

    config = EngineArgs(
        model=str(folder), dtype=dtype, skip_tokenizer_init=True, load_format="dummy", max_model_len=2048,
        enforce_eager=True, model_class_overrides=OVERRIDES, limit_mm_per_prompt={"image": 1}, enable_prefix_caching=False,
    ).create_engine_config()  # fmt: skip
    with set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype), torch.device(device):
        if not parallel_state.model_parallel_is_initialized():
            parallel_state.init_distributed_environment(
                world_size=1, rank=0, distributed_init_method=f"file://{folder}/rendezvous", local_rank=0, backend="gloo"
            )
            parallel_state.initialize_model_parallel(1)
        model = PackedPaddleOCRVL(vllm_config=config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in (*model.visual.named_parameters(), *model.mlp_AR.named_parameters()):
            spread = 0.3 if weight.ndim < 2 else weight[0].numel() ** -0.5
            value = torch.randn(weight.shape, generator=generator) * spread
            weight.copy_(value + (1 if name.endswith("norm.weight") or ("layer_norm" in name and name.endswith("weight")) else 0))
    for module in model.modules():
        if hasattr(module, "quant_method"):
            module.quant_method.process_weights_after_loading(module)
    return model.eval()


def _jobs(boxes: Path | None, count: int) -> list[Job]:
    """So many crops of as many pages as that takes, in no order."""
    pages = count  # more than enough: every page has a crop at least
    made = [job for page in (known(pages) if boxes is None else archive(boxes, pages)) for job in page][: 4 * count]
    return random.Random(1).sample(made, count)


def _batches(jobs: Sequence[Job], crops: int, device: str) -> list[Batch]:
    import torch

    grids = [(1, *grid(job.height, job.width)) for job in jobs]
    parts = [grids[n : n + crops] for n in range(0, len(grids), crops)]
    return [
        ([torch.randint(0, 256, (h * w, 3, PATCH, PATCH), dtype=torch.uint8, device=device) for _, h, w in part], part)
        for part in parts
    ]


def _ways(model: Any, forced: Sequence[str]) -> dict[str, Callable[..., Sequence[Any]]]:
    """By name, what encodes a batch."""
    from pipelines.recognize.tower import PackedTower, attention_of

    def packed() -> PackedTower:
        return PackedTower(model.visual, model.mlp_AR, model.patch_format)

    ways: dict[str, Callable[..., Sequence[Any]]] = {_PICKED: packed().encode}
    scale = model.visual.vision_model.encoder.layers[0].self_attn.attn.scale
    for name in forced:
        other = packed()
        other._attend = attention_of(SimpleNamespace(attn_backend=SimpleNamespace(name=name), scale=scale))
        ways[f"packed, {name} forced"] = other.encode
    ways[_OWN] = model.encode_upstream
    return ways


def _apart(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    import torch

    mine, own = (torch.cat(list(each)).float() for each in (ours, theirs))
    return float((mine - own).norm() / own.norm())


def _measured(
    ways: dict[str, Callable[..., Any]], work: Sequence[Batch], seconds: float, rounds: int, watch: GpuWatch
) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """Of each way, for each round: patches a second, and what the card did meanwhile."""
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in list(ways.items())[:: -1 if number % 2 else 1]:  # nobody is always the first
            _done()
            begin, clock, patches, n = time.time(), time.perf_counter(), 0, 0
            while time.perf_counter() - clock < seconds:
                crops, grids = work[n % len(work)]
                way(crops, grids)
                _done()  # a step's crops are waited for, as its language model waits
                patches, n = patches + sum(t * h * w for t, h, w in grids), n + 1
            found[name].append((patches / (time.perf_counter() - clock), watch.between(begin, time.time())))
    return found


def _kernels(encode: Callable[..., Any], work: Sequence[Batch]) -> list[str]:
    """A table by name, of one pass of every batch under PyTorch's profiler; without a card its operations on the CPU."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    card = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if card else [])]) as recorded:
        for crops, grids in work:
            encode(crops, grids)
            _done()
    rows = [row for row in recorded.key_averages() if (row.device_type.name == "CUDA") is card]
    found = Profile(
        kernels={
            (row.key, "encode"): (row.count, (row.self_device_time_total if card else row.self_cpu_time_total) / 1000)
            for row in rows
        }
    )
    return [f"kernels of the packed tower, {len(work)} passes:", *table(found.rows())]


def _done() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
