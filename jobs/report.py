"""`pagemill report`: the report of a run, or of any page of any run, as a file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, Manifest, Settings, guarded, writing
from pipelines.config import load


def report(
    output: Annotated[str, typer.Argument(help="folder or URI of the results")],
    run: Annotated[str | None, typer.Option(help="run id; default: the newest")] = None,
    page: Annotated[list[str] | None, typer.Option(help="DOCUMENT:N or DOCUMENT:N-M, from 1; more than once")] = None,
    manifest: Manifest = None,
    to: Annotated[Path | None, typer.Option(help="file to write; default: report-RUN.html in this folder")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """A run's report, or chosen pages of it: their pictures are drawn again from the source."""
    from pipelines.observe.recall import recall
    from pipelines.store.reading import Output

    config = load(conf or [], settings or [])
    with Output(output, config.store.storage_options, parts=False) as opened:
        html, run_id = recall(opened, config, run, page or [], manifest)
    target = to or Path(f"report-{run_id}.html")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(html.encode("utf-8", "replace"))
    print(target)


if __name__ == "__main__":
    guarded(report)
