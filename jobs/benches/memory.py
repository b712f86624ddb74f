"""Peak memory of a whole run on a long document and on a short one: it must not grow with the document."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from jobs.benches import tree
from jobs.benches.archives import long_pdf, originals
from jobs.benches.base import Figures


def memory(
    documents: Annotated[Path | None, typer.Option(help="folder of PDFs whose pages are repeated; default: the samples")] = None,
    long: Annotated[int, typer.Option(help="pages of the long document")] = 2000,
    short: Annotated[int, typer.Option(help="pages of the short one")] = 200,
    settings: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> Figures:
    """PSS over the process tree, Ray's own processes and object store included."""
    options = list(settings or [])
    found = {pages: _peak(pages, originals(documents), options) for pages in (short, long)}
    figures = Figures("memory", {"settings": options})
    for pages, usage in found.items():
        figures.add(f"peak memory, {pages:,} pages", usage.peak_mib, "MiB", "below 4096" if pages == long else "")
        figures.add(f"wall time, {pages:,} pages", usage.wall_s, "s")
    figures.add("growth", 100 * (found[long].peak_mib / found[short].peak_mib - 1), "%", "at most 10")
    for pages, usage in found.items():
        largest = {name: round(mib) for name, mib in list(usage.at_peak.items())[:8]}
        figures.notes.append(f"at the peak of {pages:,} pages, MiB: {json.dumps(largest)}")
    return figures


def _peak(pages: int, documents: list[Path], options: list[str]) -> tree.Usage:
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        long_pdf(documents, Path(scratch) / "in" / "book.pdf", pages)
        settings = [f"--set={option}" for option in [*options, f"source.cache_dir={scratch}/cache"]]
        usage = tree.run([sys.executable, "-m", "jobs.ingest", f"{scratch}/in", f"{scratch}/out", *settings], every_s=0.5)
        if usage.exit_code:
            raise RuntimeError(usage.output)
        return usage
