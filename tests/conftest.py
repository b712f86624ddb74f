"""Fixtures that many tests share: one Ray cluster and one S3 server a session (of two halves each), drivers as processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.config import Config, load
from pipelines.ingest import Ended, ingest
from tests.readers import HURRY, hurried
from tests.s3server import KEYS, S3, serving

ROOT = Path(__file__).parent.parent
Call = Callable[..., tuple[int, str]]

os.environ.update(KEYS)  # of the S3 server that tests start; botocore would look elsewhere for real ones
os.environ[HURRY] = f"{tempfile.gettempdir()}/pagemill-tests-hurry-{os.getpid()}"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # one machine, one user: drivers attach to the session's cluster


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "s3" in request.fixturenames:
        server: S3 = request.getfixturevalue("s3")
        server.faults.rules.clear()


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A local cluster with room for several drivers' actors."""
    from pipelines.cluster.session import start_local

    address, stop = start_local(cpus=8, object_store_mib=256)
    yield address
    stop()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some documents of known text, the longest of 61 pages."""
    from tests.builders import archive
    from tests.faults.harness import SIZES

    return archive(tmp_path_factory.mktemp("archive"), SIZES)


@pytest.fixture(scope="session")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What one run over `source` without faults gives: inline, span size 8; the runs under test are all through Ray."""
    from tests.faults.harness import read_pages

    output = str(tmp_path_factory.mktemp("undisturbed") / "out")
    settings = ["recognize.engine=tests.readers:SlowReader", "layout.engine=none", "raster.dpi=36", "observe.report_pages=0"]
    with hurried():
        ended = ingest(str(source), output, load(settings=settings), inline=True)
    assert ended.exit_code == 0
    return read_pages(output)


class Driver:
    """A job as a process of its own, attached to the session's cluster."""

    def __init__(self, address: str, cache: Path) -> None:
        self._address = address
        self.cache = cache

    def start(self, *arguments: str, settings: dict[str, object] | None = None, job: str = "ingest") -> subprocess.Popen[str]:
        defaults: dict[str, object] = {
            "ray.address": self._address, "ray.workers": 2, "recognize.engine": "echo", "layout.engine": "none",
            "claim.stale_after_s": 3, "claim.beat_s": 0.5, "store.commit_every_s": 0.1, "raster.dpi": 36,
            "source.cache_dir": self.cache, "observe.report_pages": 0,
        }  # fmt: skip
        options = [f"--set={key}={value}" for key, value in (defaults | (settings or {})).items()]
        return subprocess.Popen(
            [sys.executable, "-m", f"jobs.{job}", *arguments, *options],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(
        self, *arguments: str, settings: dict[str, object] | None = None, timeout: float = 500, job: str = "ingest"
    ) -> tuple[int, str]:
        process = self.start(*arguments, settings=settings, job=job)
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            pytest.fail(f"the job did not end within {timeout} s:\n{out}")
        return process.returncode, out


@pytest.fixture
def driver(ray_address: str, tmp_path: Path) -> Driver:
    return Driver(ray_address, tmp_path / "cache")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `pagemill ...` in this process: exit code, and what it printed."""

    def run(*arguments: object) -> tuple[int, str]:
        from jobs.cli import main

        monkeypatch.setattr(sys, "argv", ["pagemill", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def inline_config(output: Path | str, **settings: object) -> Config:
    """A job without engines, for what planning and the ledger do; `source__span_pages=3` sets source.span_pages."""
    defaults: dict[str, object] = {
        "recognize.engine": "echo", "layout.engine": "none", "raster.dpi": 36, "raster.engine": "pypdfium2",
        "store.commit_every_s": 0, "source.cache_dir": f"{output}-cache", "observe.report_pages": 0,
    }  # fmt: skip
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return load(settings=[f"{key}={value}" for key, value in (defaults | given).items()])


def inline(
    source: Path | str, output: Path | str, lanes: int | None = None, lane: int | None = None, **settings: object
) -> Ended:
    """One such job in this process, without Ray."""
    return ingest(str(source), str(output), inline_config(output, **settings), inline=True, lanes=lanes, lane=lane)
