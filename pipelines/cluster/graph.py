"""The Ray Data graph: a source that yields blocks of spans, and pools of actors that hold chains of stages.

Invariant: a row that goes in comes out as an outcome; nothing is dropped by Ray. `max_errored_blocks` stays 0 (Ray's own
tolerance drops whole blocks unnamed), a worker's death is retried a bounded number of times (its default is for ever),
and whatever ends the graph reaches the driver as `GraphDied`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import psutil
import pyarrow as pa
import ray
from ray.data.block import BlockMetadata

from pipelines.cluster.aside import Aside
from pipelines.cluster.card_watch import CardWatch
from pipelines.cluster.cards import Cards
from pipelines.cluster.feed import read_feed
from pipelines.cluster.pools import Pool, object_store_mib
from pipelines.cluster.ray_private import FAR_AHEAD, read_no_pickles, watch_steps
from pipelines.config import Config
from pipelines.errors import ConfigError, EngineGone, EngineUnavailable, PagemillError
from pipelines.observe.cards import merge_cards
from pipelines.schema import Span, SpanWork
from pipelines.stages import Chain, Lost, Outcome, Site, begin, named_error, stage_names
from pipelines.store.objects import ObjectStore

read_no_pickles()  # in workers too, which begin with this file


_FULL = (
    "Ray's object store is full, and so is the disk that it spills to: give either more room (ray.object_store_mib; "
    "RAY_object_spilling_directory, of a private cluster), or let fewer pages be in a block (ray.block_pages, source.span_pages)"
)
_LONGEST_END_S = 60.0


class GraphDied(Exception):
    """A block ended its worker more often than the bounded retries allow, or Ray itself gave up.

    Args:
        full: Ray had no room for a block, neither in its store nor on the disk that it spills to: no page is at fault.
    """

    def __init__(self, words: str, full: bool = False) -> None:
        super().__init__(words)
        self.full = full


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
            yield from map(encode, read_feed(store, folder))

        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ray.data.ReadTask(read, unknown, schema=_ROW)]


class Actor:
    """What an actor of a pool holds. Called with one block, returns one block.

    An engine that cannot start does not end the graph, which would only start it again: the actor gives back what comes as
    lost, with the reason, and the driver ends the run with these words.
    """

    def __init__(self, names: Sequence[str], site: Site) -> None:
        stages = stage_names(site.config)
        self._name = ", ".join(names)
        self._first, self._last = names[0] == stages[0], names[-1] == stages[-1]
        self._idle_since: float | None = None
        self._card = CardWatch.here()
        self._refused: PagemillError | None = None
        try:
            self._chain = Chain(names, site)
        except (EngineUnavailable, ConfigError) as error:
            self._refused = error

    def __call__(self, table: pa.Table) -> pa.Table:
        starved = 0.0 if self._idle_since is None else time.perf_counter() - self._idle_since
        outcome = self._work(self._decode(table))
        outcome.idle[self._name] += starved  # type: ignore[assignment]
        self._look_at_card(outcome)
        self._idle_since = time.perf_counter()
        return encode(outcome)

    def _look_at_card(self, outcome: Outcome) -> None:
        if self._card is not None:
            merge_cards(outcome.cards, self._card.taken())

    def _decode(self, table: pa.Table) -> _Passing:
        if self._first:
            return _Passing(works=begin(decode(table)))
        before: _Passing = decode(table)
        return before

    def _work(self, before: _Passing) -> Outcome:
        if self._refused is not None:
            before.lost += [Lost(work.span, named_error(self._refused)) for work in before.works]
            before.works = []
            return before
        if self._last:
            outcome = self._chain.run(before.works) if before.works else Outcome()
            for stage, spent in before.seconds.items():
                outcome.seconds[stage] = outcome.seconds.get(stage, 0.0) + spent
            outcome.lost += before.lost
            outcome.requests += before.requests
            outcome.idle += before.idle
            merge_cards(outcome.cards, before.cards)
            return outcome
        passing = _passed_on(before)
        try:
            passing.works = self._chain.through(before.works, passing.seconds)
        except Exception as error:  # goes on as lost: the driver decides
            passing.lost += [Lost(work.span, named_error(error)) for work in before.works]
        passing.requests += self._chain.requests()
        return passing


class EngineActor(Actor):
    """An actor around an engine that many blocks share: its calls overlap."""

    def __init__(self, names: Sequence[str], site: Site) -> None:
        super().__init__(names, site)
        self._clock = _SharedClock()

    async def __call__(self, table: pa.Table) -> AsyncIterator[pa.Table]:
        before = self._decode(table)
        if self._refused is not None or not before.works:
            yield encode(self._work(before))
            return
        passing = _passed_on(before)
        began = self._clock.enter()
        passing.idle[self._name] += self._clock.idle()  # type: ignore[assignment]
        try:
            passing.works = await self._chain.ask(before.works)
        except EngineGone as error:
            _end_process(error)
        except Exception as error:  # goes on as lost: the driver decides
            passing.lost += [Lost(work.span, named_error(error)) for work in before.works]
        passing.seconds["recognize"] = self._clock.leave(began)
        passing.requests += self._chain.requests()
        self._look_at_card(passing)
        yield encode(passing)


class _SharedClock:
    """Divides time among the calls that overlap: the shares of all calls add up to the time in which there was any."""

    def __init__(self) -> None:
        self._calls = 0
        self._share = 0.0  # what a call that was there from the beginning would have
        self._idle = 0.0  # without any call, since it was last asked for
        self._at = time.perf_counter()

    def enter(self) -> float:
        self._advance()
        self._calls += 1
        return self._share

    def leave(self, entered: float) -> float:
        self._advance()
        self._calls -= 1
        return self._share - entered

    def idle(self) -> float:
        """Seconds without any call, since it was last asked for."""
        idle, self._idle = self._idle, 0.0
        return idle

    def _advance(self) -> None:
        now = time.perf_counter()
        if self._calls:
            self._share += (now - self._at) / self._calls
        else:
            self._idle += now - self._at
        self._at = now


def _end_process(error: EngineGone) -> NoReturn:
    """Ends this actor at once, so that Ray starts another and gives it what was under way here.

    Not `sys.exit` or `exit_actor`, after which nothing would be tried again; and with its children, since an orphaned engine
    process would keep the card's memory.
    """
    print(f"pagemill: {error.code}: {error}; this engine's process ends and is started again", file=sys.stderr, flush=True)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)


@dataclass(slots=True)
class _Passing(Outcome):
    """Between two pools: the works themselves instead of receipts."""

    works: list[SpanWork] = field(default_factory=list)


def _passed_on(before: _Passing) -> _Passing:
    """What the pools before have counted, without their works."""
    return _Passing(lost=before.lost, seconds=before.seconds, requests=before.requests, idle=before.idle, cards=before.cards)


_ROW = pa.schema([("payload", pa.large_binary()), ("arrays", pa.large_list(pa.large_binary()))])


def encode(block: Outcome | list[Span]) -> pa.Table:
    """One block of one row, of which Ray makes no blocks smaller than ours: the pickle, and the arrays in it, copied once."""
    views: list[pickle.PickleBuffer] = []
    payload = pickle.dumps(block, protocol=5, buffer_callback=views.append)
    arrays = [np.frombuffer(view.raw(), np.uint8) for view in views]
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int64)
    data = np.concatenate([np.empty(0, np.uint8), *arrays])
    rows = pa.Array.from_buffers(pa.large_binary(), len(arrays), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    lists = pa.LargeListArray.from_arrays(pa.array([0, len(arrays)], pa.int64()), rows)
    return pa.table([pa.array([payload], pa.large_binary()), lists], schema=_ROW)


def decode(table: pa.Table) -> Any:
    """What `encode` took, from our own source or a pool of ours; its arrays are read-only views of the block."""
    payload, arrays = table.column("payload")[0].as_buffer(), table.column("arrays")[0].values
    return pickle.loads(payload, buffers=[array.as_buffer() for array in arrays])


def planned(site: Site, folder: str) -> ray.data.Dataset:
    """The blocks that the feed publishes, as they come; the feed's window bounds how many there are."""
    # 2.60 warns of what 2.64 will not have: unnamed parameters (neither this one nor those of retries have a name), and the
    # function that says which card an actor gets
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    return ray.data.read_datasource(_PlanSource(site, folder), override_num_blocks=1, num_cpus=0, ray_remote_args=FAR_AHEAD)


def run_graph(
    site: Site, folder: str, pools: Sequence[Pool], held: dict[str, float], is_over: Callable[[], bool], *,
    retries: int | None = None, cards: Cards | None = None, up: Callable[[Pool, int], None] = lambda *_: None,
) -> Generator[Outcome, None, None]:  # fmt: skip
    """Runs what the feed in `folder` yields, until it ends; outcomes come in completion order.

    Args:
        held: filled, while the graph runs, with the seconds during which each pool was held back by what follows it.
        is_over: asked some ten times a second, in threads of any kind; True ends the graph, also while nothing comes out of
            it, and without a wait for Ray.
        cards: says which card an actor gets; None: Ray chooses.
        up: told as often, in a thread of Ray's, how many actors of each pool are up.

    Raises:
        GraphDied
    """
    config = site.config.ray

    def outcomes() -> Iterator[Outcome]:
        rows = planned(site, folder)
        # a run of one block cannot use two actors: nothing that a user could change
        warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
        for pool in pools:
            given_out = None if cards is None else cards.given_out(pool)
            rows = _through(rows, pool, site, config.task_retries if retries is None else retries, given_out)
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield decode(batch)

    aside = Aside(outcomes)
    context = _settings(site.config, object_store_mib(site.config, pools))
    held_by_number = watch_steps(
        context, len(pools), lambda: _end_when(is_over() or aside.left.is_set()), lambda number, count: up(pools[number], count)
    )  # fmt: skip
    try:
        for outcome in aside.items(is_over):
            held.update({pools[number].name: seconds for number, seconds in list(held_by_number.items())})
            yield outcome
        _end_when(is_over())
    except (
        ray.exceptions.RayError,
        ray.data.exceptions.UserCodeException,
        ray.data.exceptions.SystemException,
        ray.data.exceptions.ExecutionTimeoutError,
    ) as error:
        full = isinstance(error, (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError))
        raise GraphDied(_FULL if full else f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}", full) from error
    finally:
        aside.left.set()
        if not is_over():  # else Ray may not answer any more, which the session knows
            aside.join(_LONGEST_END_S)
        held.update({pools[number].name: seconds for number, seconds in list(held_by_number.items())})


def _through(
    rows: ray.data.Dataset, pool: Pool, site: Site, retries: int, given_out: Callable[[], dict[str, Any]] | None
) -> ray.data.Dataset:
    """What a pool's actors make of each block."""
    compute: dict[str, Any] = {"size": pool.size, "max_tasks_in_flight_per_actor": pool.in_flight}
    reserved: dict[str, Any] = {"num_cpus": pool.cpus}
    if pool.calls > 1:
        compute["max_concurrent_calls_per_actor"] = pool.calls
    if pool.gpus:
        reserved["num_gpus"] = pool.gpus
    if pool.python is not None:
        reserved["runtime_env"] = {"py_executable": pool.python}
    return rows.map_batches(
        Actor if pool.calls == 1 else EngineActor,
        fn_constructor_args=(pool.names, site),
        compute=ray.data.ActorPoolStrategy(**compute),
        batch_size=1 if pool.gpus else None,  # a block is one row, and Ray refuses "the whole block" on a GPU
        batch_format="pyarrow",
        zero_copy_batch=True,
        max_restarts=-1,
        max_task_retries=retries,
        ray_remote_args_fn=given_out,
        **reserved,
    )


def _end_when(over: bool) -> None:
    if over:
        raise GraphDied("its driver cannot go on")


def _settings(whole: Config, store_mib: int) -> ray.data.DataContext:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every yielded block goes on at once (ray.md section 5)
    context.max_errored_blocks = 0
    context.memory_usage_poll_interval_s = None  # a thread that reads /proc once a second, in each worker, for statistics
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
        object_store_memory=store_mib << 20
    )
    # a hang in native code of a reader ends the graph; half an hour more than the slowest honest block may take
    slowest_page_s = whole.raster.deadline_s + whole.recognize.deadline_s
    context.execution_no_progress_timeout_s = 1800 + whole.block_pages * slowest_page_s
    return context
