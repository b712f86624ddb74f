"""Options that several commands have, each written once: a command takes a class of them, and Typer sees its fields
(`jobs.common.expanded`).

Invariant: a field here is an option of every command that takes its class, with the same name, words and default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from jobs.common import Conf, Settings
from pipelines.config import Config, load
from pipelines.observe.log import configure
from pipelines.paddlex_config import backend_file, pipeline_file

if TYPE_CHECKING:
    from pipelines.ingest import Ended

Lanes = Annotated[
    int | None, typer.Option("--lanes", min=1, max=1000, help="jobs that one archive is split over, fixed when OUTPUT is made")
]
RidingCanaries = Annotated[
    bool, typer.Option(help="read a few known pages too (canary.documents); where they drift, what was read is not published")
]


@dataclass(frozen=True)
class ConfigOptions:
    """What configures a run."""

    conf: Conf = None
    settings: Settings = None
    pipeline_version: Annotated[
        str | None, typer.Option("--pipeline-version", help="v1 | v1.5 | v1.6: defaults of that PaddleOCR-VL pipeline")
    ] = None
    paddlex_config: Annotated[
        Path | None, typer.Option("--paddlex-config", help="a PaddleX pipeline YAML (pipeline_config_vllm.yaml), as it is")
    ] = None
    backend_config: Annotated[
        Path | None,
        typer.Option("--backend-config", help="settings of PaddleOCR's vLLM server (vlm_server_config.yaml), as they are"),
    ] = None
    model_dir: Annotated[
        str | None, typer.Option("--model-dir", help="read with this PaddleOCR-VL, by vLLM: a folder, a URI or a hub id")
    ] = None

    def config(self) -> Config:
        """Defaults, `--conf` files, official files, `--pipeline-version`, `--model-dir`, `--set`: each over those before it. What
        of an official file has no effect is printed to stderr.

        Raises:
            ConfigError
        """
        layers: list[tuple[str, Mapping[str, Any]]] = []
        for path, translate in ((self.paddlex_config, pipeline_file), (self.backend_config, backend_file)):
            if path is not None:
                found = translate(path)
                layers.append((str(path), found.layer))
                for note in found.notes:
                    print(f"pagemill: {note}", file=sys.stderr)
        if self.pipeline_version is not None:
            layers.append(("--pipeline-version", {"paddleocr_vl": {"pipeline_version": self.pipeline_version}}))
        if self.model_dir is not None:
            layers.append(("--model-dir", {"recognize": {"engine": "vllm"}, "vllm": {"model_dir": self.model_dir}}))
        return load(self.conf or [], self.settings or [], layers)


@dataclass(frozen=True)
class JobOptions(ConfigOptions):
    """What every job that reads pages takes."""

    inline: Annotated[bool, typer.Option(help="without Ray, span after span in this process: for debugging")] = False
    take_over: Annotated[bool, typer.Option(help="take the output from a driver that is certainly dead")] = False
    lane: Annotated[int | None, typer.Option("--lane", min=0, help="which of OUTPUT's lanes this job is for, from 0")] = None

    def begin(self) -> Config:
        """The configuration, as which this process logs from now on.

        Raises:
            ConfigError
        """
        config = self.config()
        configure(config.observe.log_level)
        return config


def end(ended: Ended) -> NoReturn:
    """What a job that reads pages says last, and its exit code."""
    from pipelines.observe.report import final_line

    print(final_line(ended.summary, ended.exit_code, ended.report))
    sys.exit(ended.exit_code)
