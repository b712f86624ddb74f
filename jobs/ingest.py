"""`pagemill ingest`, and `python -m jobs.ingest` for `ray job submit`."""

from __future__ import annotations

import sys
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


def ingest(
    source: Annotated[
        str, typer.Argument(help="directory, glob, file, or a Parquet/CSV/text manifest of URIs; local or s3://...")
    ],
    output: Annotated[str, typer.Argument(help="folder or URI that the results go to")],
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
    """Read everything of SOURCE that OUTPUT does not have yet."""
    from pipelines.ingest import ingest as run
    from pipelines.observe.log import configure
    from pipelines.observe.report import final_line

    config = configuration(conf, settings, pipeline_version, paddlex_config, backend_config, model_dir)
    configure(config.observe.log_level)
    ended = run(source, output, config, inline=inline, take_over=take_over, lanes=lanes, lane=lane)
    print(final_line(ended.summary, ended.exit_code, ended.report))
    sys.exit(ended.exit_code)


if __name__ == "__main__":
    guarded(ingest)
