"""`pagemill nightly`: what is new or changed, until a time of day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from jobs.common import guarded
from jobs.options import JobOptions, Lanes, RidingCanaries, end


def nightly(
    source: Annotated[str, typer.Argument(help="as for ingest")],
    output: Annotated[str, typer.Argument(help="as for ingest")],
    *,
    until: Annotated[
        str | None, typer.Option(help="time of day at which it is over: 06:00 is local time, 06:00+02:00 and 04:00Z are not")
    ] = None,
    canaries: RidingCanaries = True,
    lanes: Lanes = None,
    job: JobOptions,
) -> None:
    """Read what is new or changed in SOURCE, drain before --until, and say what is left."""
    from pipelines.deadline import next_occurrence
    from pipelines.ingest import ingest

    config = job.begin()
    over = None if until is None else next_occurrence(until, datetime.now(UTC))
    end(
        ingest(
            source, output, config, inline=job.inline, take_over=job.take_over, until=over, lanes=lanes, lane=job.lane,
            canaries=canaries,
        )
    )  # fmt: skip


if __name__ == "__main__":
    guarded(nightly)
