"""The Ray Data graph: a source that yields blocks of spans, and pools of actors that hold chains of stages.

Invariant: a row that goes in comes out as an outcome; nothing is dropped by Ray. `max_errored_blocks` stays 0 (Ray's own
tolerance drops whole blocks unnamed), a worker's death is retried a bounded number of times (its default is for ever),
and whatever ends the graph reaches the driver as `GraphDied`.
"""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.data.block import BlockMetadata

from pipelines.cluster.feed import PLAN, decode_spans, read_feed
from pipelines.cluster.ray_private import watch_backpressure
from pipelines.config import Config, RayConfig
from pipelines.schema import SpanWork
from pipelines.stages import STAGES, Chain, Lost, Outcome, Site, begin, named_error
from pipelines.store.objects import ObjectStore

FUSED: tuple[tuple[str, ...], ...] = (STAGES,)  # one pool: no image crosses Ray
APART: tuple[tuple[str, ...], ...] = (("rasterize",), ("layout",), ("recognize",), ("assemble", "write"))


class GraphDied(Exception):
    """A block ended its worker more often than the bounded retries allow, or Ray itself gave up."""


class _PlanSource(ray.data.Datasource):
    """One lazy read task that yields a block at a time: rows flow while the plan is still growing."""

    def __init__(self, site: Site, folder: str) -> None:
        self._site = site
        self._folder = folder

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ray.data.ReadTask]:
        site, folder = self._site, self._folder

        def read() -> Iterable[pa.Table]:
            store = ObjectStore(site.output, site.config.store.storage_options, site.config.store.retries)
            yield from read_feed(store, folder)

        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ray.data.ReadTask(read, unknown, schema=PLAN)]


class Pool:
    """What an actor of a pool holds. Called with one block, returns one block."""

    def __init__(self, names: Sequence[str], site: Site) -> None:
        self._chain = Chain(names, site)
        self._name = pool_name(names)
        self._first, self._last = names[0] == STAGES[0], names[-1] == STAGES[-1]
        self._idle_since: float | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        starved = 0.0 if self._idle_since is None else time.perf_counter() - self._idle_since
        outcome = self._work(self._decode(table))
        outcome.idle[self._name] += starved  # type: ignore[assignment]
        self._idle_since = time.perf_counter()
        return pa.table({"payload": pa.array([pickle.dumps(outcome, protocol=5)], pa.large_binary())})

    def _decode(self, table: pa.Table) -> _Passing:
        if self._first:
            return _Passing(works=begin(decode_spans(table)))
        before: _Passing = pickle.loads(table.column("payload")[0].as_buffer())  # from our own previous pool
        return before

    def _work(self, before: _Passing) -> Outcome:
        if self._last:
            outcome = self._chain.run(before.works)
            for stage, spent in before.seconds.items():
                outcome.seconds[stage] = outcome.seconds.get(stage, 0.0) + spent
            outcome.lost += before.lost
            outcome.requests += before.requests
            outcome.idle += before.idle
            return outcome
        passing = _Passing(lost=before.lost, seconds=before.seconds, requests=before.requests, idle=before.idle)
        try:
            passing.works = self._chain.through(before.works, passing.seconds)
        except Exception as error:  # goes on as lost: the driver decides
            passing.lost += [Lost(work.span, named_error(error)) for work in before.works]
        passing.requests += self._chain.requests()
        return passing


@dataclass(slots=True)
class _Passing(Outcome):
    """Between two pools: the works themselves instead of receipts."""

    works: list[SpanWork] = field(default_factory=list)


def pools(config: RayConfig) -> list[str]:
    """The names of a graph's pools of actors, in order."""
    return [pool_name(names) for names in (FUSED if config.fuse else APART)]


def pool_name(names: Sequence[str]) -> str:
    return ", ".join(names)


def run_graph(site: Site, folder: str, workers: int, held: dict[str, float], *, retries: int | None = None) -> Iterator[Outcome]:
    """Runs what the feed in `folder` yields, until it ends; outcomes come in completion order.

    Args:
        held: grows, when the graph ends, by the seconds during which each pool was held back by what follows it.

    Raises:
        GraphDied
    """
    config = site.config.ray
    context = _settings(site.config)
    names_of_pools = pools(config)
    held_by_number = watch_backpressure(context, len(names_of_pools))
    rows = ray.data.read_datasource(_PlanSource(site, folder), override_num_blocks=1, num_cpus=0)
    # max_restarts and max_task_retries have no named parameter in 2.60, and it warns of what it will remove in 2.64
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    for names in FUSED if config.fuse else APART:
        rows = rows.map_batches(
            Pool,
            fn_constructor_args=(names, site),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=config.worker_cpus if config.fuse else config.worker_cpus / len(APART),
            max_restarts=-1,
            max_task_retries=config.task_retries if retries is None else retries,
        )
    try:
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for payload in batch.column("payload"):
                yield pickle.loads(payload.as_buffer())  # from our own last pool
    except (
        ray.exceptions.RayError,
        ray.data.exceptions.UserCodeException,
        ray.data.exceptions.SystemException,
        ray.data.exceptions.ExecutionTimeoutError,
    ) as error:
        raise GraphDied(f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}") from error
    finally:
        held.update({names_of_pools[number]: seconds for number, seconds in held_by_number.items()})


def _settings(whole: Config) -> ray.data.DataContext:
    config = whole.ray
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every yielded block goes on at once (ray.md section 5)
    context.max_errored_blocks = 0
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=config.object_store_mib << 20
    )
    # a hang in native code of a reader ends the graph; half an hour more than the slowest honest block may take
    slowest_page_s = whole.raster.deadline_s + whole.recognize.deadline_s
    context.execution_no_progress_timeout_s = 1800 + whole.block_pages * slowest_page_s
    return context
