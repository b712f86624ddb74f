"""Whether the driver and the ledger keep up at 500 pages a second: everything is real but the reading, which sleeps.

Listing, probing, planning, the feed, Ray, receipts, commits, finalizing and the report are the product's own. In the place
of the reading stages stand pools of actors that hand on what they get, and one as an engine's is: it holds many blocks at
once, sleeps as long as a reader of the given speed would take for them one after the other, and writes a true part for each,
its pages all alike (text of 3,000 characters, twelve blocks), with Arrow instead of row by row: on this side of the bench CPU
time is not what is measured.

The driver's CPU is counted from the first outcome to the last: what a start costs (Python, Ray, DuckDB, the report) it costs
once. On a machine too small or too busy for the rate, the CPU that a page takes of the driver still says what one core
of a driver moves.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from jobs.benches import tree
from jobs.benches.archives import plain_pdfs
from jobs.benches.base import Figures
from pipelines.cluster.pools import Pool
from pipelines.schema import PAGES, Block, Box, PageWork, Span, SpanReceipt
from pipelines.stages import Outcome, Site, begin
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import page_row

_BLOCKS = 12
_CHARACTERS = 3000
_WORKERS = (
    32  # of each other pool, by the blocks that it holds: Ray's executor looks ten times a second, so few would be the limit
)


def driver(
    rate: Annotated[float, typer.Option(help="pages a second that the simulated readers give together")] = 500,
    documents: Annotated[int, typer.Option(help="PDFs in the archive")] = 1500,
    pages: Annotated[int, typer.Option(help="of each")] = 20,
    readers: Annotated[int, typer.Option(help="actors that sleep")] = 4,
    calls: Annotated[int, typer.Option(help="blocks at once in each of them, as in an engine")] = 16,
    pools: Annotated[int, typer.Option(help="that a block passes, theirs among them; three with an engine as configured")] = 3,
    settings: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> Figures:
    """A whole run with readers that sleep: pages a second, and what the driver's threads took for it."""
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        plain_pdfs(Path(scratch) / "in", documents, pages)
        options = [f"ray.workers={readers}", f"source.cache_dir={scratch}/cache", *(settings or [])]
        command = [sys.executable, "-m", "jobs.benches.driver", f"{scratch}/in", f"{scratch}/out"]
        usage = tree.run([*command, str(rate), str(calls), str(pools), *options], memory=False)
        if usage.exit_code:
            raise RuntimeError(usage.output)
        seen: dict[str, Any] = json.loads(usage.output.splitlines()[-1])
        report = json.loads(next(Path(scratch).glob("out/runs/*/report.json")).read_text())
    count, steady = documents * pages, seen["pages"]
    given = {"documents": documents, "pages": count, "readers": readers, "calls": calls, "pools": pools}
    figures = Figures("driver", given | {"settings": options[2:]})
    figures.add("readers' speed, together", rate, "pages/s")
    figures.add("committed, from the first commit to the last", _committed_rate(report["timeline"]), "pages/s")
    middle = [at for at in report["timeline"] if 0.1 * count <= at[1] <= 0.9 * count]
    figures.add("committed, the middle eight tenths", _committed_rate(middle), "pages/s", "500")
    figures.add("CPU of the driver, first outcome to last", 1000 * seen["cpu_s"] / steady, "ms/page", "below 2")
    figures.add("hence pages that one core of it moves", steady / seen["cpu_s"], "pages/s", "500")
    for name, spent in seen["threads"].items():
        figures.add(f"  thread {name}", 1000 * spent / steady, "ms/page")
    figures.add("CPU of the driver before and after", seen["fixed_s"], "s")
    figures.add("pages of an outcome, mean", seen["pages_an_outcome"])
    figures.add("commits", seen["commits"])
    figures.add("one commit, median", seen["commit_ms"], "ms")
    figures.notes.append(f"CPU seconds by process: {json.dumps({k: round(v, 1) for k, v in usage.cpu_by_name.items()})}")
    return figures


def _committed_rate(timeline: Sequence[Sequence[float]]) -> float:
    (first_s, first), (last_s, last) = timeline[0], timeline[-1]
    return (last - first) / max(last_s - first_s, 1e-9)


# -- the run, in a process of its own ---------------------------------------------------------------------------------


def _simulate(source: str, output: str, rate: str, calls: str, pools: str, *options: str) -> None:
    from pipelines import pipeline
    from pipelines.cluster import graph
    from pipelines.config import load
    from pipelines.ingest import ingest
    from pipelines.store.ledger import Ledger

    config = load(settings=options)
    pool = Pool(("recognize",), config.ray.workers or 1, 0.25, calls=int(calls))
    seconds = pool.size / float(rate)  # that each reader takes for a page
    append, took = Ledger.append, list[float]()

    def timed(self: Ledger, records: Sequence[Any]) -> int:
        started = time.perf_counter()
        number = append(self, records)
        took.append(1000 * (time.perf_counter() - started))
        return number

    def sleeping(site: Site, folder: str, *_: Any, **__: Any) -> Generator[Outcome, None, None]:
        yield from watch.over(run_sleeping(site, folder, others, pool, seconds))

    others = [Pool(("layout",), _WORKERS)] * (int(pools) - 1)
    pipeline.plan_pools = lambda *_: [*others, pool]  # type: ignore[attr-defined]
    graph.run_graph = sleeping
    Ledger.append = timed  # type: ignore[method-assign]
    watch = _Threads()
    ended = ingest(source, output, config)
    if ended.exit_code:
        raise SystemExit(f"the run ended with {ended.exit_code}: {ended.summary.message}")
    print(json.dumps(watch.figures() | {"commits": len(took), "commit_ms": median(took)}))


class _Threads:
    """CPU seconds of this process and its threads while outcomes come, by thread name; threads without a Python name are
    Ray's, DuckDB's and Arrow's."""

    def __init__(self) -> None:
        self._now: dict[int, tuple[str, float]] = {}
        self._names: dict[int, str] = {}
        self._process = psutil.Process()
        self._spent: dict[str, float] = {}
        self._cpu_s = 0.0
        self._pages = self._outcomes = 0
        threading.Thread(target=self._watch, name="the bench's own", daemon=True).start()

    def over(self, outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
        """The same outcomes, counted from the first (which is not) to the last."""
        first = next(outcomes)
        before, cpu = self._by_thread(), time.process_time()
        yield first
        for outcome in outcomes:
            self._outcomes += 1
            self._pages += sum(len(receipt.pages) for receipt in outcome.receipts)
            yield outcome
        self._cpu_s += time.process_time() - cpu
        for thread, (name, spent) in self._by_thread().items():
            self._spent[name] = self._spent.get(name, 0.0) + spent - before.get(thread, ("", 0.0))[1]

    def figures(self) -> dict[str, Any]:
        threads = {name: spent for name, spent in sorted(self._spent.items(), key=lambda item: -item[1]) if spent > 0.02}
        return {
            "cpu_s": self._cpu_s, "threads": threads, "pages": self._pages, "fixed_s": time.process_time() - self._cpu_s,
            "pages_an_outcome": self._pages / max(1, self._outcomes),
        }  # fmt: skip

    def _watch(self) -> None:
        while True:
            self._by_thread()
            time.sleep(0.5)

    def _by_thread(self) -> dict[int, tuple[str, float]]:
        """What each thread has spent, those that ended too."""
        self._names.update({thread.native_id or 0: thread.name.split("_")[0] for thread in threading.enumerate()})
        for thread in self._process.threads():
            self._now[thread.id] = self._names.get(thread.id, "native"), thread.user_time + thread.system_time
        return dict(self._now)


def run_sleeping(
    site: Site, folder: str, others: Sequence[Pool], pool: Pool, seconds: float
) -> Generator[Outcome, None, None]:  # fmt: skip
    """As `run_graph`, with one pool of readers that sleep, behind others that hand on what they get: one actor each."""
    import ray

    from pipelines.cluster.graph import decode, planned

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1
    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True, "num_cpus": pool.cpus}
    rows = planned(site, folder)
    for other in others:
        flight = other.size * other.in_flight
        rows = rows.map_batches(
            HandsOn, compute=ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=flight), **whole
        )
    rows = rows.map_batches(
        SleepingReader,
        fn_constructor_args=(site, seconds),
        compute=ray.data.ActorPoolStrategy(
            size=pool.size, max_tasks_in_flight_per_actor=pool.in_flight, max_concurrent_calls_per_actor=pool.calls
        ),
        **whole,
    )
    yield from map(decode, rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))


class HandsOn:
    """A pool that does nothing: what it costs is Ray's."""

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


class SleepingReader:
    """All stages in one actor: takes its time, writes a part, returns receipts."""

    def __init__(self, site: Site, seconds: float) -> None:
        self._store = ObjectStore(site.output, site.config.store.storage_options)
        self._site = site
        self._seconds = seconds
        self._until = time.monotonic()
        self._template = _template(site)

    async def __call__(self, table: pa.Table) -> AsyncIterator[pa.Table]:
        from pipelines.cluster.graph import decode, encode

        works = begin(decode(table))
        pages = [(work.span, page, work.attempt) for work in works for page in work.span.pages]
        self._until = max(self._until, time.monotonic()) + self._seconds * len(pages)
        part = self._part(pages)
        key = f"pages/part-{hashlib.sha256(part).hexdigest()}.parquet"
        self._store.put(key, part)
        await asyncio.sleep(max(0.0, self._until - time.monotonic()))
        receipts = [
            SpanReceipt(
                w.span.doc_id, w.span.revision, w.span.pages, ("ok",) * len(w.span.pages), ("",) * len(w.span.pages),
                w.span.tries, w.attempt, key,
            )
            for w in works
        ]  # fmt: skip
        yield encode(Outcome(receipts, seconds={"recognize": self._seconds * len(pages)}))

    def _part(self, pages: Sequence[tuple[Span, int, str]]) -> bytes:
        own = {
            "doc_id": pa.array([span.doc_id for span, _, _ in pages]),
            "page_index": pa.array([page for _, page, _ in pages], pa.int32()),
            "revision": pa.array([span.revision for span, _, _ in pages], pa.int32()),
            "attempt": pa.array([attempt for _, _, attempt in pages]),
        }
        same = self._template.take(pa.array(np.zeros(len(pages), np.int64)))
        table = pa.table([own.get(name, same.column(name)) for name in PAGES.names], schema=PAGES)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        return sink.getvalue()


def _template(site: Site) -> pa.Table:
    """One page's row."""
    words = ("ledger page span block layout reading order archive column margin figure table " * 40)[: _CHARACTERS // _BLOCKS]
    page = PageWork("", 0, markdown="\n\n".join([words] * _BLOCKS), width_pt=595, height_pt=842, dpi=144)
    page.blocks = [Block("text", Box(100, 100 * i, 1000, 100 * i + 90), words, "pixels", "asleep", "") for i in range(_BLOCKS)]
    row = page_row(page) | {
        "revision": 1, "fingerprint": site.fingerprint, "run_id": site.run_id, "attempt": "", "span_first": 0, "span_pages": 1,
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=PAGES)


if __name__ == "__main__":
    _simulate(*sys.argv[1:])
