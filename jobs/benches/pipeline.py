"""Bench `pipeline`: pages a second of the whole run on a card, from PDFs to Parquet, with models of the true shape.

Rasterizing, layout on the same card, crops, engines, Markdown, Parquet on a local disk and the ledger are the product's
own, through Ray; `pipeline_actors` says what is forced. Invariant: a page counts when its last block was answered, the run
must end with every page in the ledger, and models start before the clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import typer

from jobs.benches.archives import copies, originals
from jobs.benches.base import Figures
from jobs.benches.gpu_watch import GpuWatch
from jobs.benches.layout import write_layout
from jobs.benches.pipeline_actors import ENDS, LONG
from jobs.benches.shape import write_shape
from jobs.benches.workloads import grid


def pipeline(
    documents: Annotated[Path, typer.Option(help="folder of PDFs with a text layer")],
    pages: Annotated[int, typer.Option(help="at least so many, in whole copies, each a document of its own")] = 1000,
    engines: Annotated[int, typer.Option(help="of each card")] = 3,
    places: Annotated[int, typer.Option(help="of each engine")] = 512,
    wave: Annotated[int, typer.Option(help="places that are free before an engine is offered crops")] = 96,
    kv_mib: Annotated[float, typer.Option(help="KV cache of an engine, MiB a place; 18 KiB a token")] = 12,
    workers: Annotated[int, typer.Option(help="actors of each CPU stage")] = 8,
    layout: Annotated[str, typer.Option(help="PP-DocLayout: v2, v3; none: the boxes alone, no model runs")] = "v3",
    long: Annotated[float, typer.Option(help="share of crops whose answers have 4,096 tokens, whatever their text")] = 0,
    kill_after: Annotated[
        float | None, typer.Option(help="seconds after the first page: one engine's process is killed, and must come back")
    ] = None,
    cards: Annotated[
        str, typer.Option(help="numbers of the cards to watch, as nvidia-smi has them; empty: the one that is visible")
    ] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    tiny: Annotated[bool, typer.Option(help="models of a few thousand weights, to try the bench without a GPU")] = False,
    keep: Annotated[Path | None, typer.Option(help="folder for the run's report.json")] = None,
) -> Figures:
    """Whole runs on a card: rasterize, layout, crop, recognize, assemble, write."""
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        root = Path(scratch)
        _, made = copies(originals(documents), root / "in", pages)
        options = {
            "recognize.engine": "vllm", "vllm.model_dir": write_shape(root / "shape", tiny), "vllm.load_format": "dummy",
            "vllm.engines_per_gpu": engines, "vllm.max_num_seqs": places, "vllm.wave": wave, "vllm.verify": "false",
            "vllm.kv_cache_memory_bytes": int(kv_mib * places * (1 << 20)), "vllm.dtype": "bfloat16", "ray.workers": workers,
            "recognize.loop_pattern": 0, "recognize.ladder": "[]", "recognize.crop_deadline_s": 3600, "raster.dpi": 144,
            "raster.engine": "pypdfium2", "source.cache_dir": root / "cache", "recognize.text_layer": "verify",
        }  # fmt: skip
        if layout == "none":
            options |= {"layout.engine": "none", "ray.fuse": "false"}
        else:
            write_layout(root / "layout", layout)
            options |= {"layout.engine": "transformers", "layout.model_dir": root / "layout"}
        (root / "ends").mkdir()
        with GpuWatch(cards.split(",")) as watch:
            told = [*(f"{key}={value}" for key, value in options.items()), *(settings or [])]
            killed = _run(root, told, kill_after, {ENDS: str(root / "ends"), LONG: str(long)})
        notes = _noted(root / "ends")
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / "report.json").write_bytes(next(root.glob("out/runs/*/report.json")).read_bytes())
        figures = Figures(
            "pipeline", {"pages": made, "workers": workers, "layout": layout, "long": long, "settings": settings or []}
        )
        row = _speed(notes, made) | _contents(str(root / "out"))
        row |= watch.between(row.pop("from"), row.pop("to"))
        figures.rows.append(row | _after(notes, killed))
    return figures


class _Note(NamedTuple):
    at: float  # time.time()
    what: str  # came or went
    pages: int
    process: str


def _noted(folder: Path) -> list[_Note]:
    """Also while they are being written: a line counts once it is whole."""
    lines = [
        (path.stem, json.loads(line)) for path in folder.iterdir() for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]  # fmt: skip
    return [_Note(at, what, pages, process) for process, (at, what, pages) in lines]


def _run(root: Path, options: list[str], kill_after: float | None, environment: dict[str, str]) -> float | None:
    """The run to its end; when an engine was killed."""
    log = (root / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.benches.pipeline_actors", str(root / "in"), str(root / "out"), *options],
        env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    killed = None
    while process.poll() is None:
        time.sleep(0.2)
        if kill_after is None or killed is not None:
            continue
        went = [note.at for note in _noted(root / "ends") if note.what == "went"]
        if went and time.time() > min(went) + kill_after:
            killed = _kill_one()
    said = (root / "log").read_text(errors="replace")
    print(said[-3000:], flush=True)
    if process.returncode or not said.splitlines() or json.loads(said.splitlines()[-1])["exit"] not in (0, 3):
        raise RuntimeError("the run did not end as it should, see above")
    return killed


def _kill_one() -> float:
    for found in psutil.process_iter(["cmdline", "name"]):
        if "EngineCore" in " ".join(found.info["cmdline"] or [found.info["name"] or ""]):
            found.kill()
            return time.time()
    raise RuntimeError("there is no engine to kill")


def _speed(notes: list[_Note], made: int) -> dict[str, Any]:
    """From the first page that an engine was given to the last answer; and without the first tenth of the pages."""
    begin = min(note.at for note in notes)
    went = sorted(note for note in notes if note.what == "went")
    done, early, early_done = 0, begin, 0
    for note in went:
        done += note.pages
        if done <= made / 10:
            early, early_done = note.at, done
    end = went[-1].at
    return {
        "pages/s": round(done / (end - begin), 2), "after a tenth": round((done - early_done) / (end - early), 2),
        "seconds": round(end - begin, 1), "pages read": done, "from": begin, "to": end,
    }  # fmt: skip


def _contents(output: str) -> dict[str, Any]:
    """What the pages hold, as the output has it."""
    import pagemill

    pages = pagemill.read(output, "pages", columns=["state", "blocks"]).to_pylist()
    blocks = [block for page in pages for block in page["blocks"] if block["tokens"]]
    tokens = sum(block["tokens"] for block in blocks)
    grids = [grid(*_sides(block)) for block in blocks]
    return {
        "states": dict(Counter(page["state"] for page in pages)), "tok/page": round(tokens / len(pages)),
        "crops/page": round(len(blocks) / len(pages), 1), "grids": len(set(grids)),
        "patches/page": round(sum(h * w for h, w in grids) / len(pages)),
    }  # fmt: skip


def _sides(block: dict[str, Any]) -> tuple[int, int]:
    x0, y0, x1, y1 = (round(edge) for edge in block["bbox_px"])
    return max(1, y1 - y0), max(1, x1 - x0)


def _after(notes: list[_Note], killed: float | None) -> dict[str, Any]:
    """What an engine's death did: how long the others went without an answer, and when one came from its successor."""
    if killed is None:
        return {}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for note in sorted(notes):
        first.setdefault(note.process, note.at)
        last[note.process] = note.at
    there = [process for process, at in first.items() if at < killed]
    dead = min(there, key=lambda process: last[process])
    others = sorted(n.at for n in notes if n.process in there and n.process != dead and n.what == "went" and n.at > killed)
    new = [at for at in first.values() if at > killed]
    pauses = [after - before for before, after in zip([killed, *others], others, strict=False)]
    return {
        "others' longest pause s": round(max(pauses, default=0.0), 2),
        "back after s": round(min(new) - killed, 1) if new else "not before the end",
    }
