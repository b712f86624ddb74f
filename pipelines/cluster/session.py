"""A Ray session for one run: a private local cluster, or a seat in one that is there.

Invariant: what Ray would send, print or draw by itself is off before it is imported; a private cluster ends with the run.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

# before the import of ray, which reads them then: no telemetry (P7), no progress bars of its own
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a FutureWarning in each worker
# how often a task begins again whose worker Ray's memory monitor ended, after 1, 2, 4, 8, 16 s; Ray's default is for ever, and
# a page that takes all memory would never end. Then the graph dies, and its pages are read apart
os.environ.setdefault("RAY_task_oom_retries", "5")
# pauses before a block is tried again whose actor does not answer: 6 s, then 12. Ray's own (0.1 s, 0.2 s) use up the retries
# before it knows that a node is gone, 15 s after it refuses to answer; then its actors are started elsewhere, and get the block
os.environ.setdefault("RAY_task_actor_unavailable_retry_delay_base_ms", "6000")
os.environ.setdefault("RAY_task_actor_unavailable_retry_max_delay_ms", "60000")

import ray
import ray.data  # configures its logger when it is imported

from pipelines.cluster.cards import Cards
from pipelines.cluster.head import End, HeadWatch, listens
from pipelines.cluster.metrics import port_option
from pipelines.cluster.pools import Pool
from pipelines.cluster.ray_private import (
    end_executions,
    own_signals,
    print_into,
    read_no_pickles,
    without_dashboard_process,
    without_idle_processes,
)
from pipelines.config import RayConfig
from pipelines.errors import ClusterLost, ConfigError

read_no_pickles()
_MIB = 1 << 20
# how long a head may be away. Nobody starts a private one again; a shared one may come back, but Ray ends its drivers after 60
_PATIENCE_PRIVATE_S = 3.0
_PATIENCE_S = 30.0
_PATIENCE_RAYLET_S = 1.0  # a look that failed, and one more; Ray ends the driver soon
_TASK_S = 180.0  # for the first worker of a loaded machine


class Session:
    """Context manager; `workers` is the number of reader actors that the cluster gives room for."""

    def __init__(
        self, config: RayConfig, object_store_mib: int | None, metrics_port: int | None = None,
        lost: Callable[[ClusterLost], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """
        Args:
            object_store_mib: of a private cluster; None: Ray's own default, a share of the machine's memory.
            metrics_port: where a private cluster shows its metrics; None: where Ray likes.
            lost: told, in a thread of its own, that the cluster's head or this node's raylet is gone; Ray does not answer then.

        Raises:
            ConfigError: no metrics can be shown here.
        """
        self._config = config
        self._metrics = port_option(metrics_port)
        self._object_store_mib = object_store_mib
        self.cpus, self.gpus = 1, 0  # of the cluster
        self.workers = config.workers or os.cpu_count() or 1
        self._ours = False
        self._lost = lost
        self._watch: HeadWatch | None = None
        self._cards: Cards | None = None
        self._diverted = ExitStack()

    def __enter__(self) -> Session:
        self._diverted.enter_context(_native_stderr_in_file(self._is_lost))
        _quiet()
        if not ray.is_initialized():
            if self._config.address is None:
                self._diverted.enter_context(without_idle_processes())
            with own_signals(), without_dashboard_process():
                self._start()
            self._ours = True
        if self._config.workers is None:
            self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)) - (self._config.address is None))
        self.cpus, self.gpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("CPU", "GPU"))
        patience_s = _PATIENCE_PRIVATE_S if self._config.address is None else _PATIENCE_S
        head = End("the head of the Ray cluster", ray.get_runtime_context().gcs_address, patience_s)
        self._watch = HeadWatch([head, *_raylets()], self._lost)
        self._watch.start()
        return self

    def cards(self, pools: Sequence[Pool]) -> Cards:
        """The cluster's cards for the actors of these pools, until the session ends."""
        self._cards = Cards(pools, self.gpus)
        return self._cards

    def _start(self) -> None:
        address = self._config.address
        # one CPU more than readers: a task-pool stage that finds none waits for ever (ray.md section 4)
        alone: dict[str, object] = {"num_cpus": self.workers + 1, "include_dashboard": False, **self._metrics}
        local = {} if address else alone
        if address:
            _check_listens(address)
        if not address and self._object_store_mib is not None:
            local["object_store_memory"] = self._object_store_mib * _MIB
        for attempt in range(1, self._config.startup_tries + 1):
            try:
                ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
                return
            except ConnectionError as error:
                raise ConfigError(f"ray.address={address}: {error}. Start a head there, or --set ray.address=null") from None
            except Exception as error:  # a loaded machine fails to bring its agents up in time: seen, helped by trying again
                if attempt == self._config.startup_tries:
                    words = (str(error).strip().splitlines() or [""])[0]
                    raise ClusterLost(
                        f"Ray does not start here: {type(error).__name__}: {words}. Is {tempfile.gettempdir()} full, or memory? "
                        "Its logs are in ray/session_latest/logs there; `pagemill doctor` looks at the machine"
                    ) from error
                ray.shutdown()
                time.sleep(2**attempt)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._diverted:
            if self._watch is not None:
                self._watch.stop()
            if self._is_lost():
                return  # Ray would wait for it; with this process its private cluster ends
            if self._cards is not None:
                self._cards.give_back()
            if self._ours:
                end_executions()
                ray.shutdown()

    def _is_lost(self) -> bool:
        return self._watch is not None and self._watch.gone


def _raylets() -> Iterator[End]:
    """Ray's process on this node, which hands the driver its workers and its object store; none starts another one."""
    here = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == here:
            yield End("Ray's raylet on this node", f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", _PATIENCE_RAYLET_S)


def _check_listens(address: str) -> None:
    """Ray itself tries for some ten minutes (20 times 35 s) before it says that nothing is there.

    Raises:
        ConfigError
    """
    if error := listens(address):
        raise ConfigError(f"ray.address={address}: {error}. Start a head there, or --set ray.address=null")


def _log_path() -> str:
    """Where what Ray's core says goes: what of it matters to a user, the run itself says in words."""
    return os.path.join(tempfile.gettempdir(), f"pagemill-ray-{os.getuid()}.log")


def _quiet() -> None:
    """Ray Data's lines go to its own log file in the session's folder, Ray's messages to `_log_path`, not to the terminal."""
    print_into(_log_path())
    for name in ("ray", "ray.data"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR if name == "ray" else logging.INFO)
        for handler in list(logger.handlers):
            if not isinstance(handler, logging.FileHandler) and "Session" not in type(handler).__name__:
                logger.removeHandler(handler)
        logger.propagate = False


@contextmanager
def _native_stderr_in_file(stays: Callable[[], bool]) -> Iterator[None]:
    """Lines that Ray's C++ core writes to file descriptor 2 go to a file; what Python prints still reaches the terminal.

    Args:
        stays: whether it is to be so afterwards too, because Ray was not shut down and still writes.
    """
    try:
        if sys.stderr.fileno() != 2:
            yield
            return
    except (AttributeError, OSError, ValueError):  # captured by a test runner
        yield
        return
    sys.stderr.flush()
    before, terminal = sys.stderr, os.dup(2)
    log = os.open(_log_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(log, 2)
    os.close(log)
    sys.stderr = os.fdopen(terminal, "w", buffering=1)
    try:
        yield
    finally:
        sys.stderr.flush()
        if not stays():
            os.dup2(terminal, 2)
            sys.stderr.close()
            sys.stderr = before


def start_local(cpus: int, object_store_mib: int) -> tuple[str, Callable[[], None]]:
    """A cluster on this machine that other drivers may join: its address, and what ends it."""
    with without_dashboard_process():
        info = ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=object_store_mib * _MIB,
        )
    return str(info.address_info["gcs_address"]), ray.shutdown


def check_cluster(config: RayConfig) -> str:
    """Starts or joins a cluster as a run would and has it do one task; what it is made of.

    Raises:
        ConfigError: nothing answers at `ray.address`, or its workers have another pagemill. Others: Ray's own.
    """

    def here() -> str:
        from importlib import metadata

        return metadata.version("pagemill")

    with Session(config, config.object_store_mib):
        theirs, ours = ray.get(ray.remote(num_cpus=0)(here).remote(), timeout=_TASK_S), here()
        if theirs != ours:
            raise ConfigError(f"the cluster's workers have pagemill {theirs}, this driver {ours}: install the same on every node")
        found = ray.cluster_resources()
        place = "a private cluster" if config.address is None else config.address
        return f"{place} runs tasks: {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs, {len(ray.nodes())} nodes"
