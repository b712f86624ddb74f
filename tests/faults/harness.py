"""What the tests of faults share: an archive, what an undisturbed run makes of it, and ways to disturb one.

Every test here ends alike: run again, and `read` returns row for row what the undisturbed run's does, on the columns that
are not volatile; the audit finds nothing missing.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

import pagemill
from pipelines.store.audit import audit
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import comparable
from tests.conftest import Driver
from tests.readers import hurried

SIZES = {"long": 61, "middle": 17, "short-a": 1, "short-b": 2, "short-c": 1}
PAGES = sum(SIZES.values())
SLOW: dict[str, object] = {"recognize.engine": "tests.readers:SlowReader", "source.span_pages": 4}


def read_pages(output: str, options: dict[str, object] | None = None) -> pa.Table:
    return comparable(pagemill.read(output, "pages", storage_options=options))


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
        assert not (foreign := foreign_lines(out)), foreign
    with hurried():
        code, out = driver.run(str(source), output, settings=SLOW | settings)
    assert code == 0, out
    return kills


_OURS = (
    "pagemill: ", "pages ", "finished: ", "nothing to do: ", "failed: ", "CLUSTER_LOST: ",
    "Markdown  ", "Parquet   ", "Report    ",
)  # fmt: skip


def foreign_lines(out: str) -> list[str]:
    """What is on a user's terminal beside what pagemill has to say: Ray's own messages, tracebacks, warnings."""
    return [line for line in out.splitlines() if line and not line.startswith(_OURS)]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], what: str, within_s: float = 200) -> None:
    until = time.monotonic() + within_s
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"{what} did not come about:\n{process.communicate()[0]}")
        time.sleep(0.05)


def ends_like(undisturbed: pa.Table, output: str, source: Path | None = None, options: dict[str, object] | None = None) -> None:
    """What every fault has to end in, once the run was started again."""
    assert read_pages(output, options).equals(undisturbed)
    listing = [str(path) for path in source.iterdir()] if source else None
    result = audit(output, listing, options)
    assert result.ok, (result.problems, result.pending)


class Nodes:
    """A Ray cluster of several nodes on this machine: a head without CPUs, where drivers attach, and others that die."""

    def __init__(self, others: int, cpus: int) -> None:
        from ray.cluster_utils import Cluster

        from pipelines.cluster.ray_private import without_dashboard_process

        self._cpus = cpus
        # a raylet that is gone refuses the next look at it; one on a loaded machine has half a minute to answer
        looks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 30_000}
        with without_dashboard_process(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("ray._private.utils.write_ray_address", lambda *_: None)  # nobody's ray.address=auto shall find it
            head = {"num_cpus": 0, "object_store_memory": 100 << 20, "include_dashboard": False}
            self._cluster = Cluster(head_node_args=head | {"_system_config": looks}, initialize_head=True)
        self.others = [self.add() for _ in range(others)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def head(self) -> psutil.Process:
        """What schedules, and knows of all others."""
        return psutil.Process(self._cluster.head_node.all_processes["gcs_server"][0].process.pid)

    def add(self) -> Any:
        return self._cluster.add_node(num_cpus=self._cpus, object_store_memory=100 << 20)

    def working(self) -> list[Any]:
        """Nodes that have readers of pagemill on them now."""
        return [node for node in self.others if any("MapWorker" in words for words in _words(self._tree(node)))]

    def kill(self, node: Any) -> None:
        """Everything on it at once, as when its power fails."""
        tree = self._tree(node)
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.others.remove(node)

    def close(self) -> None:
        self._cluster.shutdown()

    @staticmethod
    def _tree(node: Any) -> list[psutil.Process]:
        (raylet,) = node.all_processes["raylet"]
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(raylet.process.pid)
            return [process, *process.children(recursive=True)]
        return []


def _words(processes: Iterable[psutil.Process]) -> Iterator[str]:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            yield " ".join(process.cmdline())
