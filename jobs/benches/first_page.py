"""How long after the command its first page is in the ledger: what a person who tries pagemill waits for."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from jobs.benches import tree
from jobs.benches.archives import copies, originals
from jobs.benches.base import Figures


def first_page(
    documents: Annotated[Path | None, typer.Option(help="folder of documents; default: the samples")] = None,
    rounds: Annotated[int, typer.Option(help="of each, interleaved")] = 5,
    settings: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> Figures:
    """From the command's start to the first committed page, through Ray and inline."""
    options = list(settings or [])
    found: dict[str, list[float]] = {"inline": [], "ray": []}
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        copies(originals(documents), Path(scratch) / "in", 1)
        for _ in range(rounds):
            found["inline"].append(_first_commit(Path(scratch), [*options], ["--inline"]))
            found["ray"].append(_first_commit(Path(scratch), [*options], []))
    figures = Figures("first-page", {"rounds": rounds, "settings": options})
    figures.add("first page committed, inline, median", median(found["inline"]), "s", "below 6")
    figures.add("first page committed, through Ray, median", median(found["ray"]), "s", "below 35")
    figures.notes += [f"{side} rounds: {[round(seconds, 2) for seconds in rows]}" for side, rows in found.items()]
    return figures


def _first_commit(scratch: Path, options: Sequence[str], flags: Sequence[str]) -> float:
    output = scratch / "out"
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    options = [f"--set={option}" for option in [*options, f"source.cache_dir={scratch / 'cache'}"]]
    started = time.time()
    usage = tree.run([sys.executable, "-m", "jobs.ingest", str(scratch / "in"), str(output), *options, *flags], memory=False)
    if usage.exit_code:
        raise RuntimeError(usage.output)
    report = json.loads(next((output / "runs").glob("*/report.json")).read_text())
    return float(report["started"]) + float(report["first_commit_s"]) - started
