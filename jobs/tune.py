"""`pagemill tune FILE`: finds the settings for the card that is here, and writes them as a configuration file.

Speed does not depend on weights, so the true shape is measured with random ones and forced lengths, on the workload of the
bench `engine`. What the CPU stages need beside it is measured without an engine.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from jobs.benches.archives import originals
from jobs.benches.base import table
from jobs.benches.engine import Setup, measured, started
from jobs.benches.engine_worker import pack_page
from jobs.benches.shape import write_shape
from jobs.benches.tuning import Candidate, Trial, fitting, search, settings_of
from jobs.benches.workloads import known
from jobs.common import Conf, Settings, guarded
from pipelines.config import Config, load
from pipelines.errors import ConfigError, EngineUnavailable
from pipelines.recognize import gpu_memory

_KV_MIB = 12.0  # of a place, at most; what is left of the card stays free while tuning


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
    fits = fitting(config, card.total, card.total - card.free)
    if not fits:
        raise EngineUnavailable(f"{card.name}: no engine fits with this configuration; `pagemill doctor` has the arithmetic")
    for engines, (places, needs) in fits.items():
        print(f"{engines} engines of {places} places: " + "; ".join(needs.lines()), flush=True)
    trials = _trials(config, fits, packers)
    best = max(trials, key=lambda trial: trial.pages_per_s)
    print("\n".join(table([_shown(trial) for trial in trials])))
    print(_cpu_stages(config, documents, best.pages_per_s))
    words = f"# Written by pagemill tune on {card.name}: {best.pages_per_s:.1f} pages/s of the bench's known workload.\n"
    file.write_text(words + yaml.safe_dump(settings_of(best, config), sort_keys=False), encoding="utf-8")
    print(f"{file}: {best.candidate.engines} engines of {best.candidate.places} places, waves of {best.candidate.wave} "
          f"({time.monotonic() - began:.0f} s)")  # fmt: skip


def _trials(config: Config, fits: dict[int, Any], packers: int) -> list[Trial]:
    most, places = max(fits), max(places for places, _ in fits.values())
    room = min(needs.kv / needs.engines for _, needs in fits.values()) / places / (1 << 20)
    with tempfile.TemporaryDirectory() as folder:
        bench = {
            "kv_mib": min(_KV_MIB, room), "batched": config.vllm.max_num_batched_tokens,
            "eager": config.vllm.enforce_eager, "extra": "{}", "packers": packers,
        }  # fmt: skip
        every = [Setup(f"packed:{most}x{places}", "packed", most, places, 1)]
        with started(every, write_shape(Path(folder)), bench) as teams:

            def measure(candidate: Candidate, pages: int) -> tuple[float, float, dict[str, Any]]:
                name = f"packed:{candidate.engines}x{candidate.places}:wave={candidate.wave}"
                row = measured(Setup.parse(name), teams["packed"][: candidate.engines], known(pages, 7), 64, 0)
                print(row, flush=True)
                return float(row["pages/s"]), float(row.get("GPU busy %", 100)) / 100, row

            return list(search(fits, measure))


def _shown(trial: Trial) -> dict[str, Any]:
    return {
        "engines": trial.candidate.engines, "places": trial.candidate.places, "wave": trial.candidate.wave,
        "predicted pages/s": "-" if trial.predicted is None else round(trial.predicted, 1),
        "measured pages/s": round(trial.pages_per_s, 1), "tok/s": trial.row["tok/s"], "GPU busy": f"{trial.busy:.0%}",
    }  # fmt: skip


def _cpu_stages(config: Config, documents: Path | None, pages_per_s: float) -> str:
    """Cores that rasterizing and packing take at a rate of pages, by measuring each alone."""
    from pipelines.raster.isolate import IsolatedRasterizer

    drawn, spent = 0, 0.0
    with IsolatedRasterizer(config.raster.engine, config.raster.deadline_s, config.raster.memory_mib) as rasterizer:
        for path in originals(documents)[:10]:
            if path.suffix.lower() == ".pdf":
                began = time.perf_counter()
                rasterizer.render(str(path), [], 0, config.raster.dpi, config.raster.max_megapixels)
                drawn, spent = drawn + 1, spent + time.perf_counter() - began
    raster = spent / drawn if drawn else 0.0
    work = known(4, 5)
    packing = sum(pack_page(jobs, n)[1] for n, jobs in enumerate(work)) / len(work)
    return (
        f"CPU stages a page: rasterizing {raster * 1000:.0f} ms, packing {packing * 1000:.0f} ms; "
        f"at {pages_per_s:.1f} pages/s they keep {pages_per_s * (raster + packing):.1f} cores busy"
    )


if __name__ == "__main__":
    guarded(tune)
