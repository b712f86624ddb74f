"""Planning a large archive that is mostly known, against a large ledger: `pagemill plan` as a user would start it."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from jobs.benches import tree
from jobs.benches.base import Figures
from jobs.benches.synthetic import Archive, ListedFileSystem, folder_bytes, write_ledger

_SOURCE = "listed://archive"


def planning(
    documents: Annotated[int, typer.Option(help="objects in the source")] = 1_000_000,
    known_share: Annotated[float, typer.Option(help="of them known to the ledger by uri and etag")] = 0.99,
    pages: Annotated[int, typer.Option(help="of each document")] = 10,
    in_ledger: Annotated[int, typer.Option(help="documents in the ledger; those beyond the known are listed no more")] = 0,
    ledger: Annotated[Path | None, typer.Option(help="keep the synthetic ledger here, and use it when it is there")] = None,
) -> Figures:
    """Listing, comparing and counting what is new, with no document's bytes read."""
    known = round(documents * known_share)
    in_ledger = in_ledger or documents
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        output = ledger or Path(scratch) / "out"
        started = time.perf_counter()
        if not output.exists():
            write_ledger(str(output), Archive(documents, pages), known, in_ledger - known)
        made_s = time.perf_counter() - started
        usage = tree.run([sys.executable, "-m", "jobs.benches.planning", str(output), str(documents), str(pages)], every_s=0.25)
        if usage.exit_code or f"{known} done" not in usage.output:
            raise RuntimeError(usage.output)
        figures = Figures("planning", {"documents": documents, "known": known, "pages in the ledger": in_ledger * pages})
        figures.add("whole command", usage.wall_s, "s", "below 60")
        figures.add("CPU seconds", usage.cpu_s, "s")
        figures.add("peak memory", usage.peak_mib, "MiB", "below 4096")
        figures.add("the ledger on disk", folder_bytes(output) / (1 << 20), "MiB")
        figures.notes.append(f"the synthetic ledger took {made_s:.0f} s to write")
        return figures


def _plan(output: str, documents: str, pages: str) -> None:
    import fsspec

    from jobs.options import ConfigOptions
    from jobs.plan import plan

    fsspec.register_implementation("listed", ListedFileSystem)
    settings = [f"source.storage_options={{documents: {documents}, pages: {pages}}}"]
    plan(_SOURCE, output, options=ConfigOptions(settings=settings))


if __name__ == "__main__":
    _plan(*sys.argv[1:])
