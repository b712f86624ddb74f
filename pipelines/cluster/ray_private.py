"""What pagemill uses of Ray's private API, which may change with any minor version: hence `ray==2.60.*`.

Invariant: nothing here decides what is read or committed; without it a run would give the same pages, a worse report, a
signal during start-up would end it at once, one whose store failed would end when its graph does, and a hostile Parquet file
could run code.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pyarrow as pa
import ray
import ray._private.node
import ray._private.services
import ray._private.state
import ray._private.utils
import ray._private.worker
from ray.core.generated.common_pb2 import WorkerExitType
from ray.core.generated.gcs_pb2 import WorkerTableData
from ray.data import DataContext
from ray.data._internal.cluster_autoscaler.base_cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces import ExecutionResources
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager

from pipelines.cluster.aside import join_all

# for a task that yields blocks: Ray itself lets it be two blocks ahead of the executor, which looks ten times a second, so that
# no run could take in more than 20 a second (133 pages/s in blocks of 8, on a cluster of any size)
FAR_AHEAD = {"_generator_backpressure_num_objects": -1}

_PICKLED = "ray.data.arrow_pickled_object"


def read_no_pickles() -> None:
    """Takes Ray Data's column of pickled Python objects out of Arrow's registry, for this process.

    With it in place, any Parquet file that calls a column so has Python of its choice run by whoever reads it (seen in 2.60
    with a manifest of URIs). No block of ours has such a column; without the name it is a column of bytes.
    """
    with suppress(pa.ArrowKeyError):  # it is out already
        pa.unregister_extension_type(_PICKLED)


def print_into(path: str) -> None:
    """Has Ray's messages for a driver's user appended to a file, for this process; `log_to_driver=False` leaves them on.

    Each death of a worker is about 1 kB on standard output, between the lines of a run that goes on without loss; where a
    raylet dies it is 20 lines of its log, twice.
    """

    def write(data: dict[str, Any], *_: object, **__: object) -> None:
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(f"[{at}] ({data['pid']}) {line}\n" for line in data["lines"])
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)

    ray._private.worker.print_to_stdstream = write


@contextmanager
def own_signals() -> Iterator[None]:
    """`ray.init` within it leaves the driver's handlers for SIGINT and SIGTERM in place.

    Ray sets one for SIGTERM that ends the process before it connects, and one in native code that aborts it while it does;
    the first is prevented, the second replaced when `ray.init` is done: some milliseconds remain in which SIGTERM kills.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _replaced(ray._private.utils, "set_sigterm_handler", lambda _: None):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_dashboard_process() -> Iterator[None]:
    """`ray.init` within it starts no dashboard process, whose only work in a private cluster is Ray's usage report.

    `include_dashboard=False` still starts one, and even with the report disabled it asks the metadata services of three
    clouds where it runs (seen in Ray 2.60: 169.254.169.254 and metadata.google.internal): no network but ours (P7).
    """
    with _replaced(ray._private.services, "start_api_server", lambda *_, **__: (None, None)):
        yield


@contextmanager
def without_idle_processes() -> Iterator[None]:
    """What a private cluster of one run starts and never uses stays out: the autoscaler's monitor and the log monitor (no
    nodes to add, no worker's lines to print), and three actors of Ray Data that collect statistics for a dashboard, ask the
    autoscaler and remember on which node an actor is. Together 4 to 6 s of CPU a run, most of it their imports.

    Around `ray.init` and all graphs. Never for a cluster that others share or that grows.
    """
    node, operator = ray._private.node.Node, actor_pool_map_operator
    with ExitStack() as stack:
        for owner, name, value in (
            (node, "start_monitor", lambda _: None),
            (node, "start_log_monitor", lambda _: None),
            (_StatsManager, "register_dataset_to_stats_actor", staticmethod(lambda *_, **__: None)),
            (_StatsManager, "update_execution_metrics", staticmethod(lambda *_, **__: None)),
            (_StatsManager, "update_iteration_metrics", staticmethod(lambda *_, **__: None)),
            (streaming_executor, "create_cluster_autoscaler", lambda *_, **__: _FixedCluster()),
            (operator, "get_or_create_actor_location_tracker", _OneNode),
            (operator, "get_actor_locations", lambda _: {}),
        ):
            stack.enter_context(_replaced(owner, name, value))
        yield


class _FixedCluster(ClusterAutoscaler):
    """In place of Ray Data's autoscaler: the cluster is what it is."""

    def __init__(self) -> None:
        self._total = ExecutionResources.from_resource_dict(ray.cluster_resources())

    def try_trigger_scaling(self) -> None:
        return

    def on_executor_shutdown(self) -> None:
        return

    def get_total_resources(self) -> ExecutionResources:
        return self._total


class _OneNode:
    """In place of the actor that remembers where actors are: its one method can be called as an actor's, and does nothing."""

    def __getattr__(self, name: str) -> _OneNode:
        if name not in ("update_actor_location", "remote"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object) -> None:
        return


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """An attribute has another value within it; as it was afterwards."""
    before = vars(owner)[name]  # as it is stored: a static method stays one
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def watch_steps(
    context: DataContext, pools: int, check: Callable[[], None], up: Callable[[int, int], None]
) -> dict[int, float]:  # fmt: skip
    """Makes the executions of a context add up, for each of its last `pools` operators, the seconds during which Ray held
    back its input or its output because what follows is not fast enough.

    Args:
        check: called at each step, some ten times a second also while nothing moves; what it raises ends the execution and
            is raised where its results are read.
        up: told at each step, for each of those operators that has actors, how many of them are up.
    """
    held: dict[int, float] = defaultdict(float)
    check, up = _OnlyHere(check), _OnlyHere(up)

    class Watch(ExecutionCallback):
        def __init__(self) -> None:
            self._last = time.perf_counter()

        def before_execution_starts(self, executor: Any) -> None:
            self._last = time.perf_counter()

        def on_execution_step(self, executor: Any) -> None:
            check()
            now = time.perf_counter()
            for operator in executor._topology:
                _forget_blocks(operator)
            for number, operator in enumerate(list(executor._topology)[-pools:]):
                if operator._in_task_output_backpressure or operator._in_task_submission_backpressure:
                    held[number] += now - self._last
                for pool in operator.get_autoscaling_actor_pools():
                    if pool.num_running_actors() or pool.num_pending_actors():  # else its work is done
                        up(number, pool.num_running_actors() - pool.num_restarting_actors())
            self._last = now

    context.custom_execution_callback_classes = [Watch]
    return held


_LONGEST_END_S = 60.0


def end_executions() -> None:
    """Waits until nothing of Ray Data runs in this process any more; called before `ray.shutdown`.

    Ray itself waits two seconds for the thread that schedules an execution. One that is slower, on a loaded machine or while a
    store fails, asks Ray after it was shut down, and Ray then ends the process on the spot: exit code 1 and not a word.
    """
    join_all(_LONGEST_END_S)
    for thread in threading.enumerate():
        if isinstance(thread, streaming_executor.StreamingExecutor):
            thread.shutdown(force=True)
            thread.join(_LONGEST_END_S)


def ended_for_memory() -> Counter[str]:
    """How many workers of this job Ray's memory monitor has ended, by the address of their node: from the head's table.

    Raises:
        Ray's own errors: there is no session, the head does not answer.
    """
    worker = ray._private.worker.global_worker
    worker.check_connected()  # most of Ray's functions would start a cluster instead
    job = worker.current_job_id.binary()
    rows = map(WorkerTableData.FromString, ray._private.state.state._connect_and_get_accessor().get_worker_table())
    return Counter(
        row.worker_address.ip_address for row in rows
        if row.exit_type == WorkerExitType.NODE_OUT_OF_MEMORY and row.job_id == job
    )  # fmt: skip


class _OnlyHere:
    """A call that stays in this process: Ray pickles a context, with its callbacks, for every worker."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> None:
        self._call(*arguments)

    def __reduce__(self) -> tuple[type[_OnlyHere], tuple[Callable[..., None]]]:
        return _OnlyHere, (_nothing,)


def _nothing(*_: object) -> None:
    """What it is elsewhere."""


_MOST_STATS = 100


def _forget_blocks(operator: Any) -> None:
    """Drops what an operator keeps of every block for Ray's own statistics, which nobody asks for here.

    20,000 one-page documents (13,900 blocks) cost the driver 180 MiB more at their end than after a fifth: P4 forbids it.
    """
    kept = getattr(operator, "_output_blocks_stats", None)
    if kept is not None and len(kept) > _MOST_STATS:
        del kept[:-1]
