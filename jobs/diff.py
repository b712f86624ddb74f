"""`pagemill diff`: what changed in the text between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, OutputArgument, Settings, guarded, writing
from pipelines.config import load


def diff(
    output: OutputArgument,
    run_a: Annotated[str, typer.Argument(help="run id: before")],
    run_b: Annotated[str, typer.Argument(help="run id: after")],
    other: Annotated[str | None, typer.Option(help="the output of RUN_B, where it is another")] = None,
    to: Annotated[Path | None, typer.Option(help="file to write; default: diff-RUN_A-RUN_B.html in this folder")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Pages that two runs read and whose text or state differs, word by word, as HTML."""
    from pipelines.observe.compare import compare
    from pipelines.observe.diff import render_diff
    from pipelines.store.reading import Output

    options = load(conf or [], settings or []).store.storage_options
    with Output(output, options, parts=False) as before, Output(other or output, options, parts=False) as after:
        found = compare(before, run_a, after, run_b)
    target = to or Path(f"diff-{run_a}-{run_b}.html")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(render_diff(found).encode("utf-8", "replace"))
    print(f"{found.both} pages in both: {found.equal} equal, {found.changed} changed")
    print(target)


if __name__ == "__main__":
    guarded(diff)
