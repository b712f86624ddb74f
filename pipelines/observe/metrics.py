"""What a run counts, as metrics: names, labels and values, read from `Summary`; what exports them is in `cluster/`.

Invariant: pure; every value of a run is one that its report has too. Counters only grow. Labels are few and bounded: states,
codes, stages, pools, kinds; never a document's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.observe.summary import Summary
from pipelines.recognize.gpu_memory import CardUse

PREFIX = "pagemill_"


@dataclass(slots=True, frozen=True)
class Metric:
    name: str
    kind: Literal["counter", "gauge"]
    words: str
    label: str = ""  # besides `run`; "" for none


PAGES = Metric("pages", "counter", "pages committed, by state", "state")
FAILURES = Metric("page_failures", "counter", "failed pages, by error code", "code")
DOCUMENTS = Metric("documents", "counter", "documents completed, by state", "state")
SOURCE_ERRORS = Metric("source_errors", "counter", "objects that could not be fetched or opened, by error code", "code")
LISTED = Metric("listed_objects", "gauge", "objects of the source by verdict, once the listing is done", "verdict")
PLANNED = Metric("planned_pages", "gauge", "pages planned so far in this run")
WAITING = Metric("waiting_pages", "gauge", "pages planned and not committed")
WORKERS = Metric("workers", "gauge", "actors of each CPU pool")
BLOCKS = Metric("blocks", "counter", "blocks read, by where their text came from", "source")
BLOCK_ERRORS = Metric("block_errors", "counter", "blocks that could not be read well, by code", "code")
CHARACTERS = Metric("characters", "counter", "characters read, by where they came from", "source")
CROPS = Metric("crops", "counter", "blocks that a vision-language model answered for")
PATCHES = Metric("patches", "counter", "patches of their pictures, where a model in process read them")
TOKENS = Metric("tokens", "counter", "output tokens of the model, all tries together")
TOKENS_SAVED = Metric("tokens_saved", "counter", "tokens of the allowance left when a looping answer was cut")
STAGE_SECONDS = Metric("stage_seconds", "counter", "seconds that workers spent in each stage, summed over workers", "stage")
POOL_PRESENT = Metric("pool_present_seconds", "counter", "seconds for which a pool's workers were there, summed", "pool")
POOL_STARVED = Metric("pool_starved_seconds", "counter", "of these, seconds without input", "pool")
POOL_BLOCKED = Metric("pool_blocked_seconds", "counter", "of these, seconds held back by what follows", "pool")
REQUESTS = Metric("requests", "counter", "requests to stores and source, by kind", "kind")
GPU_BUSY = Metric("gpu_busy_percent", "gauge", "share of time in which a kernel ran, of each card here", "gpu")
GPU_MEMORY = Metric("gpu_memory_used_bytes", "gauge", "used of each card of the driver's node", "gpu")
GPU_POWER = Metric("gpu_power_watts", "gauge", "of each card of the driver's node", "gpu")
GPU_CLOCK = Metric("gpu_clock_mhz", "gauge", "of the processors of each card of the driver's node", "gpu")
GPU_CAPPED = Metric("gpu_power_capped", "gauge", "1: the power limit of a card of the driver's node keeps its clock down", "gpu")
GRAPHS = Metric("graphs", "counter", "Ray Data graphs started: 1 unless one died")

METRICS = (
    PAGES, FAILURES, DOCUMENTS, SOURCE_ERRORS, LISTED, PLANNED, WAITING, WORKERS, BLOCKS, BLOCK_ERRORS, CHARACTERS, CROPS,
    PATCHES, TOKENS,
    TOKENS_SAVED, STAGE_SECONDS, POOL_PRESENT, POOL_STARVED, POOL_BLOCKED, REQUESTS, GRAPHS,
    GPU_BUSY, GPU_MEMORY, GPU_POWER, GPU_CLOCK, GPU_CAPPED,
)  # fmt: skip


def values(summary: Summary, cards: Sequence[CardUse] = ()) -> Iterator[tuple[Metric, str, float]]:
    """Every metric with its label's value ("" where it has none) and its value now."""
    for card in cards:
        told = (
            (GPU_BUSY, card.busy),
            (GPU_MEMORY, card.used),
            (GPU_POWER, card.watts),
            (GPU_CLOCK, card.mhz),
            (GPU_CAPPED, card.capped),
        )
        yield from ((metric, card.name, float(value)) for metric, value in told if value is not None)
    shown = summary.as_dict()
    quality = shown["quality"]
    for metric, by_label in (
        (PAGES, shown["pages"]), (FAILURES, shown["codes"]), (DOCUMENTS, shown["documents"]), (LISTED, shown["listed"]),
        (SOURCE_ERRORS, shown["source_errors"]), (BLOCKS, quality["sources"]), (BLOCK_ERRORS, quality["block_errors"]),
        (CHARACTERS, quality["characters"]), (STAGE_SECONDS, shown["stage_seconds"]), (REQUESTS, shown["requests"]),
    ):  # fmt: skip
        yield from _labelled(metric, by_label)
    for pool in shown["pools"]:
        name, present = ", ".join(pool["stages"]), pool["worker_seconds"]
        yield POOL_PRESENT, name, present
        yield POOL_STARVED, name, present * pool["shares"]["starved"]
        yield POOL_BLOCKED, name, present * pool["shares"]["blocked"]
    planned = shown["planned_pages"]
    for metric, value in (
        (PLANNED, planned), (WAITING, planned - sum(shown["pages"].values())), (WORKERS, shown["workers"]),
        (GRAPHS, shown["graphs"]), (CROPS, quality["crops"]), (PATCHES, quality["patches"]), (TOKENS, quality["tokens"]),
        (TOKENS_SAVED, quality["tokens_saved"]),
    ):  # fmt: skip
        yield metric, "", float(value)


def _labelled(metric: Metric, by_label: Mapping[str, float]) -> Iterator[tuple[Metric, str, float]]:
    for label, value in by_label.items():
        yield metric, label, float(value)
