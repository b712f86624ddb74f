"""`pagemill doctor`: is this machine fit for a run, and what to do where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import Config, load
from pipelines.errors import ExitCode, PagemillError
from pipelines.source.listing import is_remote

_LEAST_FREE_GIB = 2.0
_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)


@dataclass(slots=True, frozen=True)
class Check:
    """Something that must be so. `run` says what it found, or raises; `remedy` is what to do then."""

    name: str
    run: Callable[[], str]
    remedy: str


def doctor(
    output: Annotated[str | None, typer.Option(help="also check that this place is reachable, writable and can fence")] = None,
    ray: Annotated[bool, typer.Option(help="start Ray, or join ray.address")] = True,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Check machine, Ray, engines, GPU and object store."""
    config = load(conf or [], settings or [])
    failed = [check.name for check in checks(config, output, ray) if not examine(check)]
    print(f"needs attention: {', '.join(failed)}" if failed else "all is well")
    sys.exit(ExitCode.UNHEALTHY if failed else ExitCode.OK)


def examine(check: Check) -> bool:
    """Runs one check and prints what came of it."""
    try:
        print(f"ok    {check.name:10} {check.run()}", flush=True)
        return True
    except Exception as error:  # whatever is wrong with this machine, the other checks are made
        words = str(error) if isinstance(error, PagemillError) else f"{type(error).__name__}: {error}"
        print(f"FAIL  {check.name:10} {words}\n      {'':10} {check.remedy}", flush=True)
        return False


def checks(config: Config, output: str | None, ray: bool) -> list[Check]:
    other = "pypdfium2" if config.raster.engine == "pymupdf" else "pymupdf"
    found = [
        Check("python", _python, "install Python 3.11 or 3.12 and make .venv again"),
        Check("disk", lambda: _disk(config), "free some space, or point TMPDIR and source.cache_dir elsewhere"),
        Check("memory", lambda: _memory(config), "a smaller ray.object_store_mib or ray.workers; in a container: --shm-size"),
        Check("rasterizer", lambda: _rasterizer(config), f"pip install {config.raster.engine}, or --set raster.engine={other}"),
        Check("engines", lambda: _engines(config), "pip install 'pagemill[embedded]', or another recognize.engine"),
        Check("gpu", _gpu, "the driver is there but does not answer: look at dmesg, or run on the CPU"),
    ]
    if config.recognize.engine == "vllm":
        remedy = "fewer vllm.engines_per_gpu or max_num_batched_tokens, layout.device=cpu, or a profile of conf/hardware"
        found.append(Check("gpu memory", lambda: _gpu_memory(config), remedy))
    if ray:
        remedy = "HOME must be writable; Ray's own words are in /tmp/ray/session_latest/logs; is ray.address right?"
        found.append(Check("ray", lambda: _ray(config), remedy))
    if output is not None:
        remedy = "check endpoint, credentials and bucket; the store must honour If-None-Match on PUT (docs/operations.md)"
        if not is_remote(output):
            remedy = "name a folder, there or not, in which this user may write, on a file system with hard links"
        found.append(Check("output", lambda: _output(output, config), remedy))
    return found


def _python() -> str:
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise PagemillError(f"Python {sys.version.split()[0]}: pagemill needs 3.11 or 3.12")
    return f"{sys.version.split()[0]}, pagemill {metadata.version('pagemill')}"


def _disk(config: Config) -> str:
    folder = Path(config.source.cache_dir or tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if free < min(_LEAST_FREE_GIB, config.source.cache_gib):
        raise PagemillError(f"only {free:.1f} GiB free in {folder}, where documents are cached")
    return f"{free:.0f} GiB free in {folder}, where up to {config.source.cache_gib:g} GiB of documents are cached"


def _memory(config: Config) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    shared = shutil.disk_usage("/dev/shm").total / 2**30
    wanted = (config.ray.object_store_mib or 512) / 1024
    if config.ray.address is None and shared < wanted:
        raise PagemillError(f"/dev/shm holds {shared:.2f} GiB, Ray's object store is to have {wanted:.2f}")
    return f"{os.cpu_count()} CPUs, {memory:.0f} GiB, of which {shared:.1f} GiB shared"


def _rasterizer(config: Config) -> str:
    from pipelines.raster.isolate import IsolatedRasterizer

    with tempfile.TemporaryDirectory() as folder, IsolatedRasterizer(config.raster.engine, 60, 1024) as rasterizer:
        path = Path(folder) / "page.pdf"
        path.write_bytes(_PDF)
        page = rasterizer.render(str(path), [], 0, 72, 25)
    return f"{config.raster.engine} {metadata.version(config.raster.engine)} draws ({page.pixels.shape[1]} pixels for an inch)"


def _engines(config: Config) -> str:
    from pipelines.layout.detect import load_engine
    from pipelines.recognize.engines import identify

    layout, reader = load_engine(config), identify(config)
    return f"layout {layout.name} ({layout.weights[:8] or '-'}), reader {reader.name} ({reader.weights[:8] or '-'})"


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none: the embedded engines run on the CPU"
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
    if found.returncode:
        raise PagemillError(f"nvidia-smi: {(found.stdout + found.stderr).strip()}")
    return "; ".join(found.stdout.strip().splitlines())


def _gpu_memory(config: Config) -> str:
    """The arithmetic of this configuration on the card that is here."""
    from pipelines.recognize import gpu_budget, gpu_memory

    try:
        card = gpu_memory.measure(gpu_memory.visible_card())
    except Exception:  # no card or no driver: the check before this one says so
        needed = gpu_budget.budget(config, 0)
        return f"no card here; KV cache aside, this configuration needs {-needed.kv / gpu_budget.GIB:.1f} GiB"
    found = gpu_budget.budget(config, card.total, card.total - card.free)
    if found.answers < 1:
        raise PagemillError(f"{card.name} is too small: " + "; ".join(found.lines()))
    return f"{card.name}: " + "; ".join(found.lines())


def _ray(config: Config) -> str:
    from pipelines.cluster.session import check_cluster

    return f"{metadata.version('ray')}: {check_cluster(config.ray)}"


def _output(output: str, config: Config) -> str:
    from pipelines.output import open_store

    open_store(output, config.store).check_writable()
    return f"{output} is reachable, writable and refuses to create an object twice"


if __name__ == "__main__":
    guarded(doctor)
