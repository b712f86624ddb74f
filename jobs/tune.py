"""`pagemill tune FILE`: finds the settings for the card that is here, and writes them as a configuration file.

Speed does not depend on weights, so the true shape is measured with random ones and forced lengths, on the workload of the
bench `engine`. What the CPU stages need beside it is measured without an engine.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from jobs.benches.archives import originals
from jobs.benches.base import table
from jobs.benches.cpu_stages import CpuStages
from jobs.benches.engine import Setup, measured
from jobs.benches.layout import engine_of, let_pass, noise, timed, write_layout
from jobs.benches.shape import write_shape
from jobs.benches.teams import Teams
from jobs.benches.tuning import (
    Candidate,
    Search,
    Trial,
    chosen,
    enough_workers,
    fitting,
    layout_batch,
    settings_of,
    steps_to_try,
)
from jobs.benches.workloads import known
from jobs.common import Conf, Settings, guarded
from pipelines.cluster.pools import layout_on_card
from pipelines.config import Config, load
from pipelines.errors import ConfigError, EngineUnavailable
from pipelines.recognize import gpu_memory

_LAYOUT_BATCHES = (1, 2, 4)


def tune(
    file: Annotated[Path, typer.Argument(help="where the settings go; then: pagemill ingest ... --conf FILE")],
    documents: Annotated[Path | None, typer.Option(help="pages that tell what rasterizing costs; default: the samples")] = None,
    packers: Annotated[int, typer.Option(help="CPU workers that pack crops while engines are measured")] = 8,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Find the settings for the card that is here. Takes less than ten minutes; the card must have nothing else to do."""
    config, began = load(conf or [], settings or []), time.monotonic()
    try:
        card = gpu_memory.measure(gpu_memory.visible_card())
    except Exception as error:
        raise ConfigError(f"no NVIDIA card answers here ({error}); profiles of other cards: --conf hardware/NAME") from error
    held = card.total - card.free
    fits = fitting(config, card.total, held)
    if not fits:
        raise EngineUnavailable(f"{card.name}: no engine fits with this configuration; `pagemill doctor` has the arithmetic")
    for engines, (places, needs) in fits.items():
        print(f"{engines} engines of {places} places: " + "; ".join(needs.lines()), flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        Teams(config, fits, card.total, held, write_shape(Path(folder)), packers) as teams,
    ):
        steps = steps_to_try(config, fits[1][0], card.total, held)
        trials = list(Search(fits, steps, _Bench(teams)).trials())
    print("\n".join(table([_shown(trial) for trial in trials])))
    fastest = chosen(trials)
    best, rate = fastest.candidate, fastest.pages_per_s
    found = settings_of(best, config, card.total, held, _workers(config, documents, rate), _layout_batch(config))
    words = (
        f"# Written by pagemill tune on {card.name}: {rate:.1f} pages/s of the bench's known workload.\n"
        "# ray.workers is for one such card; a cluster of N wants N times as many.\n"
    )
    file.write_text(words + yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
    print(f"{file}: {best.engines} engines of {best.places} places, waves of {best.wave}, {best.batched} tokens a step "
          f"({time.monotonic() - began:.0f} s)")  # fmt: skip


class _Bench:
    """The card that is here."""

    def __init__(self, teams: Teams) -> None:
        self._teams = teams

    def starts(self, candidate: Candidate) -> int:
        return self._teams.starts(candidate)

    def measure(self, candidate: Candidate, pages: int) -> tuple[float, float, dict[str, Any]]:
        setup = Setup.parse(f"packed:{candidate.engines}x{candidate.places}:wave={candidate.wave}")
        row = measured(setup, self._teams.of(candidate), known(pages, 7), 64, 0)
        print(row, flush=True)
        return float(row["pages/s"]), float(row.get("GPU busy %", 100)) / 100, row


def _shown(trial: Trial) -> dict[str, Any]:
    return {
        "engines": trial.candidate.engines, "places": trial.candidate.places, "wave": trial.candidate.wave,
        "tokens a step": trial.candidate.batched,
        "predicted pages/s": "-" if trial.predicted is None else round(trial.predicted, 1),
        "measured pages/s": round(trial.pages_per_s, 1), "tok/s": trial.row["tok/s"], "GPU busy": f"{trial.busy:.0%}",
    }  # fmt: skip


def _workers(config: Config, documents: Path | None, pages_per_s: float) -> int:
    """Actors of each CPU pool that keep up with the card; prints what was predicted and measured."""
    stages = CpuStages(config.raster, originals(documents))
    drawing, packing = stages.seconds()
    print(f"CPU stages a page: rasterizing {drawing * 1000:.0f} ms, packing {packing * 1000:.0f} ms")
    tried = list(enough_workers(pages_per_s, (drawing, packing), os.cpu_count() or 1, stages.pages_per_s))
    rows = [
        {"workers of each": found.count, "predicted pages/s": round(found.predicted, 1),
         "measured pages/s": round(found.pages_per_s, 1)}
        for found in tried
    ]  # fmt: skip
    print("\n".join(table(rows)))
    if tried[-1].pages_per_s < pages_per_s:
        print(
            f"all cores of this machine rasterize and pack {tried[-1].pages_per_s:.1f} pages/s: they are the limit, not the card"
        )
    return tried[-1].count


def _layout_batch(config: Config) -> int | None:
    """Pages of a micro-batch of layout, measured where PP-DocLayout in PyTorch runs on the card; None: it does not."""
    if config.layout.engine != "transformers" or not layout_on_card(config):
        print("layout.batch_pages is not tuned: with this configuration no PyTorch model finds layout on the card")
        return None
    with tempfile.TemporaryDirectory() as folder:
        write_layout(Path(folder), "v3")
        settings = [f"layout.dtype={config.layout.dtype}", f"layout.cuda_graph={config.layout.cuda_graph}"]
        found = {size: _layout_ms(Path(folder), size, settings) for size in _LAYOUT_BATCHES}
    print("\n".join(table([{"layout, pages a batch": size, "ms a page": took} for size, took in found.items()])))
    return layout_batch(found)


def _layout_ms(folder: Path, size: int, settings: list[str]) -> float:
    pages = noise(16)
    engine = engine_of(folder, f"layout.batch_pages={size}", *settings)
    let_pass(engine, pages, 20)
    return float(timed(engine, pages, 5)["ms a page"])


if __name__ == "__main__":
    guarded(tune)
