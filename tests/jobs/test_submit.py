"""`pagemill submit` on a real Ray head: its token, its slow start, logs, stop, exit codes, and going on after a stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import pagemill
from jobs.submit import entrypoint
from pipelines.config import load
from pipelines.store.audit import audit
from tests.builders import archive
from tests.conftest import ROOT
from tests.readers import hurried

PAGES = 80  # some 30 are read before a drain is over


def free_port() -> int:
    """One that the system gave: none of 10002 to 19999, which Ray wants for its workers."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if not 10000 <= port < 20000:
            return port


@dataclass
class RunningHead:
    address: str
    token: Path


@pytest.fixture
def head(tmp_path: Path) -> Iterator[RunningHead]:
    """A head that asks for a token; it is still starting when the test begins."""
    folder = tempfile.mkdtemp(prefix="pm-", dir="/tmp")  # Ray's sockets live there: a short path
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(24))
    ports = [free_port() for _ in range(4)]
    options = ["object-store-memory", "port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port"]
    command = [f"--{name}={port}" for name, port in zip(options, [200_000_000, *ports], strict=True)]
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
    }  # fmt: skip
    with open(tmp_path / "head.log", "w") as log:
        process = subprocess.Popen(
            ["ray", "start", "--head", "--block", f"--temp-dir={folder}", "--num-cpus=4", *command],
            env=env, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path,
        )  # fmt: skip
    yield RunningHead(f"http://127.0.0.1:{ports[1]}", token)
    for started in [*psutil.Process(process.pid).children(recursive=True), process]:  # SIGTERM takes it half a minute
        with contextlib.suppress(psutil.Error):
            started.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


class Submitted:
    """`pagemill submit` as a process whose lines are read as they come."""

    def __init__(self, *words: str, env: dict[str, str] | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs.submit", "--wait-s", "400", *words],
            cwd=ROOT, env=clean | (env or {}), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def said(self, word: str) -> None:
        until = time.monotonic() + 400
        while not any(word in line for line in list(self.lines)):
            assert time.monotonic() < until, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.05)

    def end(self) -> int:
        code = self.process.wait(timeout=400)
        self._reader.join()
        return code

    @property
    def text(self) -> str:
        return "".join(self.lines)


@pytest.mark.timeout(1500)
def test_a_job_streams_stops_and_goes_on(head: RunningHead, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"long": PAGES}), tmp_path / "out"
    where = ["--address", head.address, "--working-dir", str(ROOT)]
    settings = {
        "recognize.engine": "tests.readers:SlowReader", "layout.engine": "none", "raster.dpi": 36, "source.span_pages": 4,
        "ray.workers": 1, "observe.line_every_s": 0.5, "observe.report_pages": 0, "source.cache_dir": tmp_path / "cache",
    }  # fmt: skip
    job = ["ingest", str(source), str(output), *(f"--set={key}={value}" for key, value in settings.items())]

    stranger = Submitted(*where, *job)  # waits for the head, and is refused
    assert stranger.end() == 2, stranger.text
    assert "--token-file" in stranger.text

    where += ["--token-file", str(head.token)]
    first = Submitted(*where, *job)
    first.said("pages 4/")  # a line of progress, while it runs
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 7, first.text
    assert "draining" in first.text
    assert "interrupted: " in first.text
    assert sum(" draining " in line and "signal=SIGTERM" in line for line in first.lines) == 1  # no line twice
    read = pagemill.read(str(output), "pages").num_rows
    assert 0 < read < PAGES
    assert audit(str(output)).pending == PAGES - read

    (source / "broken.pdf").write_bytes(b"%PDF-1.4 nothing that opens")
    with hurried():
        second = Submitted(*where, *job)
        assert second.end() == 3, second.text  # the job's own code: a document is broken
    assert "finished: " in second.text
    result = audit(str(output), [str(path) for path in source.iterdir()])
    assert result.ok, result.problems
    assert pagemill.read(str(output), "pages").num_rows == PAGES
    assert pagemill.read(str(output), "pages", history=True).num_rows == PAGES  # nothing that was committed was read again


def test_what_the_head_runs() -> None:
    words = ["ingest", "s3://a b", "out", "--conf", "hardware/h100"]
    assert entrypoint(words, "python3") == "python3 -m jobs.ingest 's3://a b' out --conf hardware/h100 --set ray.address=auto"
    assert entrypoint([*words, "--set=ray.address=null"], "python").endswith("--set=ray.address=null")
    assert entrypoint(["audit", "out"], "python") == "python -m jobs.audit out"
    assert entrypoint(["python", "-c", "print('$x')"], "python") == "python -c 'print('\"'\"'$x'\"'\"')'"


def test_the_default_grace_fits_the_default_deadlines() -> None:
    from jobs.submit import submit

    config = load()
    longest = (config.raster.deadline_s + config.recognize.deadline_s) * config.source.span_pages
    assert submit.__kwdefaults__ is None
    assert longest < submit.__defaults__[-3] < longest + 300  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token-file", "/nowhere", "ingest", "a", "b"], "no such file"),
        (["--working-dir", "/nowhere", "ingest", "a", "b"], "no such folder"),
        (["--address", "head", "ingest", "a", "b"], "BAD_CONFIG: --address head: "),
    ],
)
def test_what_is_never_submitted(arguments: list[str], said: str) -> None:
    found = Submitted(*arguments)
    assert found.end() == 2
    assert said in found.text


def test_a_head_that_is_not_there_ends_as_a_lost_cluster() -> None:
    command = [sys.executable, "-m", "jobs.submit", "--wait-s", "0", "--address", f"http://127.0.0.1:{free_port()}", "audit", "x"]
    found = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert (found.returncode, "CLUSTER_LOST" in found.stderr) == (7, True), found.stderr
