"""P2: kill anything at any instant, run again, and what `read` returns equals that of an undisturbed run."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from pipelines.store.audit import audit
from tests.conftest import Driver
from tests.faults.harness import SLOW, Nodes, ends_like, foreign_lines, read_pages, run_with_kills, wait_for
from tests.readers import hurried
from tests.s3server import S3


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


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_raylet_of_a_private_cluster_dies(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path) -> None:
    """Ray would end its driver soon; what was committed stays, and nothing of the cluster is left behind."""
    output = str(tmp_path / "out")
    process = driver.start(str(source), output, settings=SLOW | {"ray.address": "null"})
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")), process, "the first part")
    tree = psutil.Process(process.pid).children(recursive=True)
    (target,) = [child for child in tree if child.name() == "raylet"]
    target.kill()
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 7, out
    assert "CLUSTER_LOST: Ray's raylet on this node at" in out
    assert foreign_lines(out) == []
    assert not psutil.wait_procs(tree, timeout=60)[1]
    with hurried():
        code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0, out
    ends_like(undisturbed, output, source)


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("whose", "when"), [("private", "pages/*"), ("shared", "pages/*"), ("private", "runs/*/plan/*")])
def test_the_head_of_a_cluster_dies(
    driver: Driver, cluster: Callable[[int, int], Nodes], source: Path, undisturbed: pa.Table, tmp_path: Path, whose: str,
    when: str,
) -> None:  # fmt: skip
    """The GCS, without which nothing can be scheduled: Ray would end the driver after a minute without a word. It dies while
    pages are read, or while Ray starts the graph, for which a plan is there."""
    output, nodes = str(tmp_path / "out"), cluster(1, 4) if whose == "shared" else None
    process = driver.start(str(source), output, settings=SLOW | {"ray.address": nodes.address if nodes else "null"})
    wait_for(lambda: list(Path(output).glob(when)), process, "what it was to die at")
    mine = psutil.Process(process.pid).children(recursive=True)
    (target,) = [nodes.head] if nodes else [child for child in mine if child.name() == "gcs_server"]
    agents = [child for child in mine if "Agent" in child.name()]  # they look for their raylet once in a while
    target.kill()
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 7, out
    assert "CLUSTER_LOST: the head of the Ray cluster at" in out
    assert foreign_lines(out) == []
    assert not psutil.wait_procs([child for child in mine if child not in agents], timeout=60)[1]
    with hurried():
        code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0, out
    ends_like(undisturbed, output, source)
