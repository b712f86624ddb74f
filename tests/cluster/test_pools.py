"""Pools: every stage once, in order, and within what the cluster has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cluster.graph import _SharedClock, decode, encode
from pipelines.cluster.pools import Pool, alone, blocks_ahead, bundles, calls_at_once, object_store_mib, plan_pools
from pipelines.config import Config, load
from pipelines.stages import Outcome, stage_names

VLLM = ["recognize.engine=vllm", "vllm.model_dir=/models/PaddleOCR-VL"]


def config(*settings: str) -> Config:
    return load(settings=settings)


@settings(max_examples=60, deadline=None)
@given(
    engine=st.sampled_from(["embedded", "vllm", "openai"]), layout=st.sampled_from(["embedded", "transformers", "none"]),
    fuse=st.booleans(), cpus=st.integers(2, 256), gpus=st.integers(0, 8), per_gpu=st.integers(1, 4), seqs=st.integers(1, 2048),
)  # fmt: skip
def test_every_stage_once_and_nothing_waits_for_ever(
    engine: str, layout: str, fuse: bool, cpus: int, gpus: int, per_gpu: int, seqs: int
) -> None:
    chosen = config(
        f"recognize.engine={engine}", f"layout.engine={layout}", f"ray.fuse={str(fuse).lower()}",
        f"vllm.engines_per_gpu={per_gpu}", f"vllm.max_num_seqs={seqs}",
    )  # fmt: skip
    for pools in (made := plan_pools(chosen, cpus, gpus, workers=max(1, cpus - 1)), alone(made)):
        assert tuple(name for pool in pools for name in pool.names) == stage_names(chosen)
        assert sum(pool.size * pool.cpus for pool in pools) <= cpus
        assert sum(pool.size * pool.gpus for pool in pools) <= gpus
        assert all(pool.size >= 1 and pool.calls >= 1 for pool in pools)
        assert all(pool.calls == 1 or pool.names == ("recognize",) for pool in pools)
        assert blocks_ahead(pools) >= 2
        assert object_store_mib(chosen, pools) >= 512
        for bundle in bundles(pools, gpus):  # a card's actors fit what is reserved for them together
            sharing = [pool for pool in pools if pool.gpus]
            assert sum(-(-pool.size // gpus) * pool.gpus for pool in sharing) <= bundle["GPU"]
            assert sum(-(-pool.size // gpus) * pool.cpus for pool in sharing) <= bundle["CPU"] + 0.0005


def test_a_gpu_is_divided() -> None:
    pools = {pool.names: pool for pool in plan_pools(config(*VLLM, "vllm.engines_per_gpu=3"), 64, 2, 60)}
    assert pools[("recognize",)].size == 6
    assert pools[("recognize",)].gpus == 0.333
    assert ("rasterize", "layout", "crop") in pools  # the layout engine runs on the CPU: no page image crosses Ray
    shared = {pool.names: pool for pool in plan_pools(config(*VLLM, "layout.engine=transformers"), 64, 2, 60)}
    assert [shared[names].gpus for names in (("rasterize",), ("layout",), ("crop",), ("recognize",))] == [0, 0.1, 0, 0.9]


def test_cards_are_reserved_whole_only_where_ray_could_put_too_much_on_one() -> None:
    shared = plan_pools(config(*VLLM, "layout.engine=transformers", "vllm.engines_per_gpu=3"), 64, 2, 8)
    assert bundles(shared, 2) == [{"GPU": 1, "CPU": 4}] * 2  # three engines and layout
    assert bundles(plan_pools(config(*VLLM, "layout.engine=transformers"), 64, 1, 8), 1) == []
    assert bundles(plan_pools(config(*VLLM), 64, 2, 8), 2) == []
    by_server = plan_pools(config("recognize.engine=openai", "layout.engine=transformers"), 64, 2, 8)
    assert bundles(by_server, 2) == [{"GPU": 1, "CPU": 1}] * 2  # two tenths would lie on one card, the other idle


@pytest.mark.parametrize("reader", [[], VLLM])
def test_an_interpreter_of_its_own_is_for_layout_alone(reader: list[str]) -> None:
    pools = plan_pools(config(*reader, "layout.engine=paddle", "layout.device=cpu", "layout.python=/p/bin/python"), 16, 1, 15)
    assert {pool.names: pool.python for pool in pools if pool.python} == {("layout",): "/p/bin/python"}


def test_the_engine_is_filled_four_times_or_as_configured() -> None:
    for seqs, pages in ((512, 8), (1024, 8), (256, 4), (100, 8)):
        calls = calls_at_once(config(*VLLM, f"vllm.max_num_seqs={seqs}", f"source.span_pages={pages}"))
        assert 4 * seqs <= calls * pages * 8 < 4 * seqs + 8 * pages
    wanted = config(*VLLM, "vllm.max_num_seqs=64", "ray.engine_pages=2000", "ray.block_pages=4")
    assert calls_at_once(wanted) == 500
    pools = plan_pools(wanted, 16, 1, 8)
    assert object_store_mib(wanted, pools) == 512 + (500 + 62) * 32  # 8 MiB a page of what is under way and what waits


def test_some_blocks_wait_beside_those_under_way() -> None:
    assert [Pool(("recognize",), calls=calls).in_flight for calls in (1, 2, 8, 64)] == [2, 3, 9, 72]


def test_blocks_keep_their_arrays() -> None:
    import numpy as np

    outcome = Outcome(seconds={"recognize": 1.5})
    outcome.quality = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.empty((0, 0, 3), np.uint8), np.ones(3)]  # type: ignore[assignment]
    table = encode(outcome)
    assert table.num_rows == 1  # Ray would make blocks of further rows
    again = decode(table)
    assert again.seconds == outcome.seconds
    for one, two in zip(again.quality, outcome.quality, strict=True):  # type: ignore[call-overload]
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    assert decode(encode(Outcome())).receipts == []


def test_overlapping_calls_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pipelines.cluster.graph.time.perf_counter", lambda: now[0])
    clock = _SharedClock()
    now[0] = 2.0
    first = clock.enter()
    assert clock.idle() == 2.0
    now[0] = 3.0
    second = clock.enter()
    now[0] = 5.0
    assert clock.leave(first) == 2.0  # 1 alone, 2 shared
    now[0] = 6.0
    assert clock.leave(second) == 2.0
    assert clock.idle() == 0.0
