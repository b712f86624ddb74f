"""`pagemill doctor`: is this machine fit for a run, and what to do where it is not."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import Config, load
from pipelines.errors import ExitCode, PagemillError


def doctor(
    output: Annotated[str | None, typer.Option(help="also check that this place is reachable, writable and can fence")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Check machine, Ray, engines, GPU and object store."""
    config = load(conf or [], settings or [])
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: sys.version.split()[0]),
        ("machine", _machine),
        ("ray", lambda: f"ray {metadata.version('ray')}"),
        ("rasterizer", lambda: _rasterizer(config)),
        ("engines", lambda: _engines(config)),
        ("gpu", _gpu),
    ]
    if output is not None:
        checks.append(("output", lambda: _output(output, config)))
    healthy = True
    for name, check in checks:
        try:
            print(f"ok    {name:10} {check()}")
        except (PagemillError, metadata.PackageNotFoundError) as error:
            healthy = False
            print(f"FAIL  {name:10} {error}")
    sys.exit(ExitCode.OK if healthy else ExitCode.UNHEALTHY)


def _machine() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if free < 2:
        raise PagemillError(f"only {free:.1f} GiB free in {tempfile.gettempdir()}: set TMPDIR or source.cache_dir")
    return f"{os.cpu_count()} CPUs, {memory:.0f} GiB memory, {free:.0f} GiB free in {tempfile.gettempdir()}"


def _rasterizer(config: Config) -> str:
    engine = config.raster.engine
    if find_spec(engine) is None:
        other = "pypdfium2" if engine == "pymupdf" else "pymupdf"
        raise PagemillError(f"{engine} is not installed: pip install {engine}, or --set raster.engine={other}")
    return f"{engine} {metadata.version(engine)}"


def _engines(config: Config) -> str:
    from pipelines.layout.detect import load_engine
    from pipelines.recognize.read import load_reader

    layout, reader = load_engine(config), load_reader(config.recognize)
    return f"layout {layout.name} ({layout.weights[:8] or '-'}), reader {reader.name} ({reader.weights[:8] or '-'})"


def _gpu() -> str:
    return "nvidia-smi found" if shutil.which("nvidia-smi") else "none: the embedded engines run on the CPU"


def _output(output: str, config: Config) -> str:
    from pipelines.output import open_store

    open_store(output, config.store).check_writable()
    return f"{output} is writable and refuses to create an object twice"


if __name__ == "__main__":
    guarded(doctor)
