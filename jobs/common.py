"""What all jobs share: common options, and errors that end in their exit code.

Invariant: a named error prints one line with its code and what to do, never a traceback; any other is a bug and shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.config import Config, load
from pipelines.errors import PagemillError
from pipelines.observe.log import printable
from pipelines.paddlex_config import backend_file, pipeline_file

Conf = Annotated[list[str] | None, typer.Option("--conf", help="YAML file over the defaults; may be given more than once")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the files")]

PipelineVersion = Annotated[
    str | None, typer.Option("--pipeline-version", help="v1 | v1.5 | v1.6: defaults of that PaddleOCR-VL pipeline")
]
PaddlexConfig = Annotated[
    Path | None, typer.Option("--paddlex-config", help="a PaddleX pipeline YAML (pipeline_config_vllm.yaml), as it is")
]
BackendConfig = Annotated[
    Path | None,
    typer.Option("--backend-config", help="settings of PaddleOCR's vLLM server (vlm_server_config.yaml), as they are"),
]

ModelDir = Annotated[
    str | None,
    typer.Option("--model-dir", help="read with this PaddleOCR-VL, by vLLM: a folder, a URI or a hub id"),
]

Lanes = Annotated[
    int | None, typer.Option("--lanes", min=1, max=1000, help="jobs that one archive is split over, fixed when OUTPUT is made")
]
LaneNumber = Annotated[int | None, typer.Option("--lane", min=0, help="which of OUTPUT's lanes this job is for, from 0")]

OutputArgument = Annotated[str, typer.Argument(help="folder or URI of the results")]


def configuration(
    conf: Sequence[str] | None,
    settings: Sequence[str] | None,
    version: str | None = None,
    paddlex: Path | None = None,
    backend: Path | None = None,
    model_dir: str | None = None,
) -> Config:
    """Defaults, `--conf` files, official files, `--pipeline-version`, `--model-dir`, `--set`: each over those before it. What
    of an official file has no effect is printed to stderr.

    Raises:
        ConfigError
    """
    layers: list[tuple[str, Mapping[str, Any]]] = []
    for path, translate in ((paddlex, pipeline_file), (backend, backend_file)):
        if path is not None:
            found = translate(path)
            layers.append((str(path), found.layer))
            for note in found.notes:
                print(f"pagemill: {note}", file=sys.stderr)
    if version is not None:
        layers.append(("--pipeline-version", {"paddleocr_vl": {"pipeline_version": version}}))
    if model_dir is not None:
        layers.append(("--model-dir", {"recognize": {"engine": "vllm"}, "vllm": {"model_dir": model_dir}}))
    return load(conf or [], settings or [], layers)


def guarded(command: Callable[..., None], context: dict[str, Any] | None = None) -> None:
    """Runs one command as a program; `context`: settings of its parser."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(context_settings=context)(command)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    try:
        app()
    except PagemillError as error:
        print("\n".join(map(printable, f"pagemill: {error.code}: {error}".split("\n"))), file=sys.stderr)
        sys.exit(error.exit_code)
