"""What pipeline and Ray cost over the bare engines.

The bare engines are the product's own (rasterizer, what sets a page upright, layout, reader), called page after page in a
plain loop by as many processes as the pipeline has readers: no isolation, no ledger, no Parquet, no Markdown, no Ray. Both
sides are whole commands, start of Python, of Ray and of the models and the run's report included. Rounds are interleaved.

CPU seconds are of all processes of the command; wall times say something on a quiet machine only.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from jobs.benches import tree
from jobs.benches.archives import copies, originals
from jobs.benches.base import Figures


def overhead(
    documents: Annotated[Path | None, typer.Option(help="folder of documents; default: the samples")] = None,
    pages: Annotated[int, typer.Option(help="at least so many, in whole copies of the documents")] = 240,
    rounds: Annotated[int, typer.Option(help="of each, interleaved")] = 2,
    workers: Annotated[int, typer.Option(help="processes that read, on both sides")] = 2,
    settings: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, on both sides")] = None,
) -> Figures:
    """Pipeline and Ray against the same engines in a plain loop."""
    options = [*(settings or []), f"ray.workers={workers}"]
    found: dict[str, list[dict[str, float]]] = {"bare": [], "ray": []}
    by_name: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        _, made = copies(originals(documents), Path(scratch) / "in", pages)
        for _ in range(rounds):
            for side, usage, reading_s in (
                ("bare", *_bare(Path(scratch) / "in", workers, options)),
                ("ray", *_pipeline(Path(scratch), options)),
            ):
                found[side].append({"wall_s": usage.wall_s, "reading_s": reading_s, "cpu_s": usage.cpu_s})
                by_name[side] = usage.cpu_by_name
    figures = Figures("overhead", {"pages": made, "workers": workers, "rounds": rounds, "settings": options})
    middle = {side: {key: median(row[key] for row in rows) for key in rows[0]} for side, rows in found.items()}
    for key, unit in (("wall_s", "s"), ("reading_s", "s"), ("cpu_s", "s")):
        bare, ray = middle["bare"][key], middle["ray"][key]
        goal = "" if key == "reading_s" else "below 15"
        figures.add(f"{_WORDS[key]}, bare", bare, unit)
        figures.add(f"{_WORDS[key]}, pipeline", ray, unit)
        figures.add(f"{_WORDS[key]}, overhead", 100 * (ray / bare - 1), "%", goal)
    figures.add("pages a second, bare", made / middle["bare"]["wall_s"], "1/s")
    figures.add("pages a second, pipeline", made / middle["ray"]["wall_s"], "1/s")
    for side, rows in found.items():
        figures.notes.append(f"{side}, rounds: {json.dumps([{k: round(v, 1) for k, v in row.items()} for row in rows])}")
        spent = {name: round(seconds, 1) for name, seconds in by_name[side].items()}
        figures.notes.append(f"{side}, CPU seconds of the last round by process: {json.dumps(spent)}")
    return figures


_WORDS = {
    "wall_s": "whole command",
    "reading_s": "first page to last page done",
    "cpu_s": "CPU seconds of all processes",
}


def _pipeline(scratch: Path, options: Sequence[str]) -> tuple[tree.Usage, float]:
    output = scratch / "out"
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    command = [sys.executable, "-m", "jobs.ingest", str(scratch / "in"), str(output)]
    usage = tree.run([*command, *_set([*options, f"source.cache_dir={scratch / 'cache'}"])], memory=False)
    if usage.exit_code:
        raise RuntimeError(usage.output)
    report: dict[str, Any] = json.loads(next((output / "runs").glob("*/report.json")).read_text())
    return usage, report["timeline"][-1][0] - report["first_commit_s"]


def _set(options: Sequence[str]) -> list[str]:
    return [f"--set={option}" for option in options]


# -- the bare side ------------------------------------------------------------------------------------------------------


def _bare(folder: Path, workers: int, options: Sequence[str]) -> tuple[tree.Usage, float]:
    command = [sys.executable, "-m", "jobs.benches.overhead", str(folder), str(workers), *options]
    usage = tree.run(command, memory=False)
    if usage.exit_code:
        raise RuntimeError(usage.output)
    return usage, float(usage.output.splitlines()[-1])


class _Engines:
    """One process's engines."""

    here: _Engines

    def __init__(self, options: Sequence[str]) -> None:
        from pipelines.config import load
        from pipelines.layout.detect import load_engine
        from pipelines.layout.upright import upright_of
        from pipelines.raster.child import make_rasterizer
        from pipelines.recognize.engines import load_reader

        self._config = load(settings=options)
        self._pdf = make_rasterizer(self._config.raster.engine)
        self._image = make_rasterizer("pillow")
        self._upright = upright_of(self._config)
        self._layout = load_engine(self._config)
        self._reader = load_reader(self._config.recognize)

    def read(self, path: str) -> list[float]:
        """When each page of a document was done."""
        from pipelines.layout.orientation import turned

        raster, done = self._config.raster, []
        engine = self._pdf if path.endswith(".pdf") else self._image
        count = engine.open(path, []).page_count
        for page in range(count):
            pixels = engine.render(page, raster.dpi, raster.max_megapixels)
            if self._upright is not None:
                pixels = turned(pixels, self._upright.angle(pixels) or 0)
            (regions,) = self._layout.detect([pixels])
            self._reader.read(pixels, regions)
            done.append(time.time())
        engine.close()
        return done


def _start(options: Sequence[str]) -> None:
    _Engines.here = _Engines(options)


def _read(path: str) -> list[float]:
    return _Engines.here.read(path)


def _bare_main(folder: str, workers: str, *options: str) -> None:
    paths = sorted(map(str, Path(folder).iterdir()))
    with multiprocessing.get_context("spawn").Pool(int(workers), _start, (options,)) as pool:
        done = sorted(at for times in pool.imap_unordered(_read, paths) for at in times)
    print(done[-1] - done[0])


if __name__ == "__main__":
    _bare_main(*sys.argv[1:])
