"""`pagemill ingest`, and `python -m jobs.ingest` for `ray job submit`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.common import guarded
from jobs.options import JobOptions, Lanes, RidingCanaries, end


def ingest(
    source: Annotated[
        str, typer.Argument(help="directory, glob, file, or a Parquet/CSV/text manifest of URIs; local or s3://...")
    ],
    output: Annotated[str, typer.Argument(help="folder or URI that the results go to")],
    *,
    canaries: RidingCanaries = False,
    lanes: Lanes = None,
    job: JobOptions,
) -> None:
    """Read everything of SOURCE that OUTPUT does not have yet."""
    from pipelines.ingest import ingest as run

    config = job.begin()
    end(run(source, output, config, inline=job.inline, take_over=job.take_over, lanes=lanes, lane=job.lane, canaries=canaries))


if __name__ == "__main__":
    guarded(ingest)
