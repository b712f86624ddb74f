"""P2: kill anything at any instant, run again, and what `read` returns equals that of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

import pagemill
from pipelines.store.audit import audit
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import comparable
from tests.builders import archive
from tests.conftest import Driver
from tests.s3server import S3

SIZES = {"long": 61, "middle": 17, "short-a": 1, "short-b": 2, "short-c": 1}
PAGES = sum(SIZES.values())
SLOW = {"recognize.engine": "tests.readers:SlowReader", "source.span_pages": 4}


def read_pages(output: str, options: dict[str, object] | None = None) -> pa.Table:
    return comparable(pagemill.read(output, "pages", storage_options=options))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("archive"), SIZES)


@pytest.fixture(scope="session")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What one run without faults gives: inline, span size 8; the runs under test are all through Ray."""
    from pipelines.config import load
    from pipelines.ingest import ingest

    output = str(tmp_path_factory.mktemp("undisturbed") / "out")
    settings = ["recognize.engine=tests.readers:SlowReader", "layout.engine=none", "raster.dpi=36"]
    ended = ingest(str(source), output, load(settings=settings), inline=True)
    assert ended.exit_code == 0
    return read_pages(output)


def victims(kind: str) -> list[psutil.Process]:
    """Ray's processes of the session's cluster, by what they do; those of other clusters on the machine are not ours."""
    name = {"actor": "MapWorker", "worker": "PlanSource"}[kind]
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if words.startswith("ray::") and name in words:
                found.append(process)
    return found


def parts(output: str, options: dict[str, object] | None) -> int:
    return sum(1 for _ in ObjectStore(output, options).list("pages"))


def kill_soon(process: subprocess.Popen[str], kind: str, before: int, count: Callable[[], int], dice: random.Random) -> bool:
    """Kills the driver, an actor or a worker task at a random moment after this run has written something."""
    until = time.monotonic() + 200
    while count() <= before and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(dice.uniform(0, 1.5))
    if process.poll() is not None:
        return False
    if kind == "driver":
        process.send_signal(signal.SIGKILL)
        return True
    while process.poll() is None and time.monotonic() < until:
        if found := victims(kind):  # none for a moment while one that was killed is being replaced
            dice.choice(found).kill()
            return True
        time.sleep(0.1)
    return False


def run_with_kills(
    driver: Driver, source: Path, output: str, rounds: list[tuple[str, ...]], seed: int, storage: dict[str, object] | None
) -> int:
    """Runs a job once a round, killing what the round says, and then to its end; how many kills there were."""
    dice = random.Random(seed)
    settings: dict[str, object] = {"store.storage_options": json.dumps(storage)} if storage else {}
    kills = 0
    for kinds in rounds:
        before = parts(output, storage)
        process = driver.start(str(source), output, settings=SLOW | settings)
        for kind in kinds:
            kills += kill_soon(process, kind, before, lambda: parts(output, storage), dice)
        try:
            out, _ = process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"the run hung after {kinds} died: {process.communicate()[0]}")
        assert kinds == ("driver",) or process.returncode == 0, out
    code, out = driver.run(str(source), output, settings=SLOW | settings)
    assert code == 0, out
    return kills


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_killed_runs_end_like_an_undisturbed_one_on_disk(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    assert run_with_kills(driver, source, output, [("driver",), ("worker", "actor")], 1, None) == 3
    assert read_pages(output).equals(undisturbed)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_killed_runs_end_like_an_undisturbed_one_on_s3(driver: Driver, source: Path, undisturbed: pa.Table, s3: S3) -> None:
    options = s3.options()
    output = s3.bucket() + "/out"
    assert run_with_kills(driver, source, output, [("driver",), ("worker", "actor")], 2, options) == 3
    assert read_pages(output, options).equals(undisturbed)


@pytest.mark.long
@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_many_kills_at_random_moments(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    """Sixteen kills on each kind of store, several of them in one output; a dozen outputs in all."""
    seed = int(os.environ.get("PAGEMILL_CHAOS_SEED") or time.time())
    print(f"PAGEMILL_CHAOS_SEED={seed}")  # shown when it fails
    dice = random.Random(f"{seed} {where}")
    s3: S3 | None = request.getfixturevalue("s3") if where == "s3" else None
    options = s3.options() if s3 else None
    kills = 0
    while kills < 16:
        output = s3.bucket() + "/out" if s3 else str(tmp_path / f"out-{kills}")
        rounds = [dice.choice([("driver",), ("worker", "actor"), ("actor", "actor")]) for _ in range(dice.randint(1, 4))]
        kills += run_with_kills(driver, source, output, rounds, dice.randrange(1 << 30), options)
        assert read_pages(output, options).equals(undisturbed)
        result = audit(output, storage_options=options)
        assert result.ok, result.problems


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
    code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0, out
    assert read_pages(output).equals(undisturbed)
    code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0
    assert "nothing to do" in out


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], what: str) -> None:
    until = time.monotonic() + 200
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"{what} did not come about:\n{process.communicate()[0]}")
        time.sleep(0.05)


@pytest.mark.timeout(1200)
def test_a_second_signal_stops_at_once_and_loses_nothing_that_was_committed(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    process = driver.start(str(source), output, settings=SLOW | {"recognize.engine": "tests.readers:StuckReader"})
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")), process, "the first part")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=5)  # it drains: what is under way would take minutes
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 7, out
    assert "second signal" in out
    code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0, out
    assert pagemill.read(output, "pages").num_rows == PAGES


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
    sleeper.send_signal(signal.SIGCONT)
    out, _ = sleeper.communicate(timeout=400)
    assert sleeper.returncode == 6, out
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
