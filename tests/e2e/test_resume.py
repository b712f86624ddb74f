"""P2 and P5: signals, sleepers, other span sizes, other parallelism; what is read stays the same."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

import pagemill
from pipelines.store.audit import audit
from tests.conftest import Driver
from tests.faults.harness import PAGES, SLOW, kill_soon, parts, read_pages, wait_for
from tests.readers import hurried


@pytest.mark.long  # in make test: inline, after each write of a run (tests/faults/test_interrupted.py)
@pytest.mark.timeout(1200)
def test_resume_with_another_span_size(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    for span_pages in (8, 3):
        process = driver.start(str(source), output, settings=SLOW | {"source.span_pages": span_pages})
        assert kill_soon(process, "driver", parts(output, None), lambda: parts(output, None), random.Random(span_pages))
        process.communicate(timeout=400)
    code, out = driver.run(str(source), output, settings=SLOW | {"source.span_pages": 16})
    assert code == 0, out
    assert read_pages(output).equals(undisturbed)


@pytest.mark.timeout(1200)
def test_a_signal_drains_commits_and_leaves_the_rest_to_the_next_run(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    process = driver.start(str(source), output, settings=SLOW)
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")), process, "the first part")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 7, out
    first = pagemill.read(output, "pages").num_rows
    assert 0 < first < PAGES
    with hurried():
        code, out = driver.run(str(source), output, settings=SLOW | {"ray.workers": 1})
    assert code == 0, out
    assert read_pages(output).equals(undisturbed)
    code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0
    assert "nothing to do" in out


@pytest.mark.timeout(1200)
def test_a_second_signal_stops_at_once_and_loses_nothing_that_was_committed(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    process = driver.start(str(source), output, settings=SLOW | {"recognize.engine": "tests.readers:LaterStuckReader"})
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")), process, "the first part")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=5)  # it drains: what is under way would take minutes
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 7, out
    assert "second signal" in out
    with hurried():
        code, out = driver.run(str(source), output, settings=SLOW | {"ray.workers": 1})
    assert code == 0, out
    assert pagemill.read(output, "pages").num_rows == PAGES


@pytest.mark.long  # in make test: the ledger's own, on disk and S3 (test_ledger.py::test_a_stale_driver_that_wakes_up_is_fenced)
@pytest.mark.timeout(1200)
def test_a_driver_that_slept_while_another_took_over_is_fenced(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    sleeper = driver.start(str(source), output, settings=SLOW)
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")), sleeper, "the first part")
    sleeper.send_signal(signal.SIGSTOP)
    code, out = driver.run(str(source), output, settings=SLOW)  # sees no beat for claim.stale_after_s
    assert code == 0, out
    commits = set(Path(output).glob("ledger/0/0*.parquet"))
    sleeper.send_signal(signal.SIGCONT)
    out, _ = sleeper.communicate(timeout=400)
    assert sleeper.returncode == 6, out
    assert set(Path(output).glob("ledger/0/0*.parquet")) == commits
    assert "is writing this output" in out
    assert read_pages(output).equals(undisturbed)
    result = audit(output)
    assert result.ok, result.problems


@pytest.mark.timeout(1200)
def test_a_signal_while_ray_starts_is_a_drain_too(driver: Driver, source: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    process = driver.start(str(source), output, settings=SLOW | {"ray.address": "null"})
    wait_for(lambda: list(Path(output).glob("ledger/0/00000002.parquet")), process, "the plan")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 7, out
    (report,) = Path(output).glob("runs/*/report.json")
    assert json.loads(report.read_text())["status"] == "interrupted"


@pytest.mark.long  # in make test: a model's pages through pools of their own (test_vision.py); shares of pools (tests/observe)
@pytest.mark.timeout(1200)
def test_the_same_whatever_the_parallelism(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path) -> None:
    """P5, with a pool for each stage and images that cross Ray; and P8's shares."""
    output = str(tmp_path / "out")
    settings: dict[str, object] = {"ray.fuse": "false", "ray.workers": 1, "source.span_pages": 3, "ray.worker_cpus": 0.4}
    code, out = driver.run(str(source), output, settings=SLOW | settings)
    assert code == 0, out
    assert read_pages(output).equals(undisturbed)
    (path,) = Path(output).glob("runs/*/report.json")
    report = json.loads(path.read_text())
    assert [pool["stages"] for pool in report["pools"]] == [["rasterize"], ["layout"], ["recognize"], ["assemble", "write"]]
    for pool in report["pools"]:
        assert {"starved", "blocked"} < set(pool["shares"])
        assert all(0 <= share <= 1 for share in pool["shares"].values())
        assert sum(pool["shares"].values()) <= 1.01
    read = report["pools"][2]
    assert read["shares"]["recognize"] * read["worker_seconds"] >= 0.25 * PAGES * 0.99
