"""`pagemill nightly`: what is new or changed, until a time of day."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from jobs.common import (
    BackendConfig,
    Conf,
    LaneNumber,
    Lanes,
    ModelDir,
    PaddlexConfig,
    PipelineVersion,
    Settings,
    configuration,
    guarded,
)


def nightly(
    source: Annotated[str, typer.Argument(help="as for ingest")],
    output: Annotated[str, typer.Argument(help="as for ingest")],
    until: Annotated[
        str | None, typer.Option(help="time of day at which it is over: 06:00 is local time, 06:00+02:00 and 04:00Z are not")
    ] = None,
    conf: Conf = None,
    settings: Settings = None,
    pipeline_version: PipelineVersion = None,
    paddlex_config: PaddlexConfig = None,
    backend_config: BackendConfig = None,
    model_dir: ModelDir = None,
    inline: Annotated[bool, typer.Option(help="without Ray, span after span in this process: for debugging")] = False,
    take_over: Annotated[bool, typer.Option(help="take the output from a driver that is certainly dead")] = False,
    lanes: Lanes = None,
    lane: LaneNumber = None,
) -> None:
    """Read what is new or changed in SOURCE, drain before --until, and say what is left."""
    from pipelines.deadline import next_occurrence
    from pipelines.ingest import ingest
    from pipelines.observe.log import configure
    from pipelines.observe.report import final_line

    config = configuration(conf, settings, pipeline_version, paddlex_config, backend_config, model_dir)
    end = None if until is None else next_occurrence(until, datetime.now(UTC))
    configure(config.observe.log_level)
    ended = ingest(
        source, output, config, inline=inline, take_over=take_over, until=end, lanes=lanes, lane=lane, canaries=True
    )  # fmt: skip
    print(final_line(ended.summary, ended.exit_code, ended.report))
    sys.exit(ended.exit_code)


if __name__ == "__main__":
    guarded(nightly)
