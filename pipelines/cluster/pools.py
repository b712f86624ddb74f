"""Which stages share an actor pool, how many actors each has, and what each actor reserves. Pure: knows nothing of Ray.

Invariant: every stage is in exactly one pool, in order; what all actors reserve together fits the cluster, else Ray would
wait for ever for the last of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.config import Config
from pipelines.recognize.engines import is_vision
from pipelines.stages import stage_names

_CROPS_A_PAGE = 8  # cautious: archives have 8 to 17; too few calls would leave an engine idle, too many only wait in it
_FILLED = 4  # how often the crops of the blocks under way fill an engine's places, see `calls_at_once`
_LAYOUT_SHARE = 0.1  # of a card in Ray's books; what it really takes is layout.memory_gib


@dataclass(slots=True, frozen=True)
class Pool:
    """Some consecutive stages in the actors of one pool."""

    names: tuple[str, ...]
    size: int = 1
    cpus: float = 1.0  # that each actor reserves
    gpus: float = 0.0
    calls: int = 1  # at once in each actor; above 1 the pool is asynchronous
    python: str | None = None  # interpreter of its processes; None: the driver's

    @property
    def name(self) -> str:
        return ", ".join(self.names)

    @property
    def in_flight(self) -> int:
        """Blocks at each actor: those under way, and some that wait, so that another begins at once when one ends."""
        return self.calls + max(1, self.calls // 8)


def plan_pools(config: Config, cpus: int, gpus: int, workers: int) -> list[Pool]:
    """The pools of a run.

    Args:
        cpus, gpus: of the cluster.
        workers: actors of each CPU pool.
    """
    stages = stage_names(config)
    if not is_vision(config.recognize):
        groups = [stages] if config.ray.fuse and config.layout.python is None else _apart(stages)
        return _fitting([_layout_python(Pool(names, workers, config.ray.worker_cpus), config) for names in groups], cpus)
    at = stages.index("recognize")
    local = config.recognize.engine == "vllm"
    engines = max(1, gpus) * config.vllm.engines_per_gpu if local else 1
    on_card = gpus > 0 and layout_on_card(config)
    share = _cut((1 - _LAYOUT_SHARE * on_card) / config.vllm.engines_per_gpu) if local and gpus else 0.0
    separate = on_card or config.layout.python is not None or not config.ray.fuse
    before = _apart(stages)[:at] if separate else [stages[:at]]
    return _fitting(
        [
            *(
                _layout_python(
                    Pool(names, gpus, config.ray.worker_cpus, _LAYOUT_SHARE)
                    if on_card and names == ("layout",)
                    else Pool(names, workers, config.ray.worker_cpus),
                    config,
                )
                for names in before
            ),
            Pool(stages[at : at + 1], engines, 1.0, share, calls_at_once(config)),
            Pool(stages[at + 1 :], max(1, workers // 4), config.ray.worker_cpus),
        ],
        cpus,
    )


def _layout_python(pool: Pool, config: Config) -> Pool:
    """Layout alone in its pool may have an interpreter of its own: Paddle's CUDA libraries must not meet vLLM's."""
    return replace(pool, python=config.layout.python) if pool.names == ("layout",) else pool


def layout_on_card(config: Config) -> bool:
    """Whether the layout engine wants a GPU, where there is one."""
    network = config.layout.engine in ("transformers", "paddle") or config.paddleocr_vl.use_doc_unwarping
    return network and config.layout.device != "cpu"


def alone(pools: Sequence[Pool]) -> list[Pool]:
    """The same pools for pages that run one at a time."""
    return [replace(pool, size=1, calls=min(pool.calls, 2)) for pool in pools]


def bundles(pools: Sequence[Pool], gpus: int) -> list[dict[str, float]]:
    """What the actors on one card reserve together, once for each card; none where no card has room for one too many."""
    on_card = [(pool, math.ceil(pool.size / max(1, gpus))) for pool in pools if pool.gpus]
    if gpus < 2 or not any((count + 1) * pool.gpus <= 1 for pool, count in on_card):
        return []
    cpus = sum(count * pool.cpus for pool, count in on_card)
    return [{"GPU": 1, "CPU": round(cpus, 3)} for _ in range(gpus)]


def calls_at_once(config: Config) -> int:
    """Blocks under way in one engine: `ray.engine_pages` of them, by default so many that their crops fill it four times.

    Twice would do where answers are alike. But a block stays until its last answer is there, and one of 4,096 tokens takes
    minutes in a full engine: of 1,024 places with an answer in a hundred so long, blocks that fill it twice leave 113 answers
    under way, four times 220, eight times 330 (computed, docs/performance.md). Each page under way costs memory, see
    `object_store_mib`.
    """
    places = config.vllm.max_num_seqs if config.recognize.engine == "vllm" else config.server.concurrency
    pages = config.ray.engine_pages or math.ceil(_FILLED * places / _CROPS_A_PAGE)
    return max(2, math.ceil(pages / config.block_pages))


def blocks_ahead(pools: Sequence[Pool]) -> int:
    """Blocks published and not come back: at every actor, and as many on their way between pools."""
    return sum(pool.size * pool.in_flight for pool in pools) + sum(2 * pool.size for pool in pools if pool.calls == 1)


def shares(pools: Sequence[Pool]) -> int:
    """Blocks into which the last pages of a run are cut: two for each reader, so that none reads while the others are done.

    0 where an engine reads: it holds many blocks at once, and small ones would leave places in it empty.
    """
    return 0 if any(pool.calls > 1 for pool in pools) else 2 * max(pool.size for pool in pools)


_BLOCK_MIB = 64  # 8 pages of packed crops: 900 patches of 588 bytes a crop, 14 crops a page
_READER_STORE_MIB = 512


def object_store_mib(config: Config, pools: Sequence[Pool]) -> int:
    """Bound on bytes in flight between pools: as configured, else room for the blocks that are at the engines."""
    if config.ray.object_store_mib is not None:
        return config.ray.object_store_mib
    there = sum(pool.size * pool.in_flight for pool in pools if pool.calls > 1)
    return _READER_STORE_MIB + (there * _BLOCK_MIB * config.block_pages) // 8


def private_store_mib(config: Config) -> int | None:
    """Object store of a private cluster; None: Ray's default, 30 % of the machine's memory."""
    if config.ray.object_store_mib is not None or is_vision(config.recognize):
        return config.ray.object_store_mib
    return _READER_STORE_MIB


def _apart(stages: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each stage its own pool, but what follows recognition, which is light."""
    at = stages.index("recognize")
    return [*((name,) for name in stages[: at + 1]), stages[at + 1 :]]


def _fitting(pools: list[Pool], cpus: int) -> list[Pool]:
    """Reservations scaled down where they exceed the cluster's CPUs."""
    wanted = sum(pool.size * pool.cpus for pool in pools)
    factor = min(1.0, max(0.1, cpus - 0.5) / wanted) if wanted else 1.0
    return [replace(pool, cpus=_cut(pool.cpus * factor)) for pool in pools]


def _cut(value: float) -> float:
    """Rounded down to what Ray counts in."""
    return math.floor(value * 1000) / 1000
