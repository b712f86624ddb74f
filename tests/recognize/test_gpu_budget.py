"""What a card has to hold, and the shipped profiles against it."""

from __future__ import annotations

import pytest

from jobs.benches.shape import true_shape
from pipelines.config import load
from pipelines.recognize.gpu_budget import GIB, Shape, budget, layout_bytes, step_bytes, tower_bytes
from tests.conftest import ROOT

# GiB of a card, and what a desktop was seen to hold on one of 8 GB (6.77 of 7.96 free); servers have none
CARDS = {
    "rtx5060-8g": (7.96, 1.19), "rtx5060-8g-layout": (7.96, 1.19), "rtx5070-12g": (11.9, 1.19), "rtx5080-16g": (15.9, 1.19),
    "rtx5090": (31.8, 1.19), "rtx-pro-6000": (95.6, 0.0), "l40s": (44.5, 0.0), "h100": (79.6, 0.0), "h200": (140.4, 0.0),
    "b200": (178.0, 0.0),
}  # fmt: skip


def test_the_shape_counts_what_the_model_has() -> None:
    shape = Shape()
    assert 0.89e9 < shape.parameters < 0.92e9
    assert shape.kv_bytes == 18_432
    config = true_shape()
    vision = config["vision_config"]
    same = Shape(
        config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"],
        config["head_dim"], config["intermediate_size"], config["vocab_size"], vision["hidden_size"],
        vision["num_hidden_layers"], vision["intermediate_size"],
    )  # fmt: skip
    assert same == shape


@pytest.mark.parametrize("profile", CARDS)
def test_each_profile_fits_its_card(profile: str) -> None:
    config = load([f"hardware/{profile}"])
    card, desktop = CARDS[profile]
    found = budget(config, int(card * GIB), int(desktop * GIB))
    assert found.kv > 0
    assert found.answers == config.vllm.max_num_seqs, found.lines()  # its places can be filled
    assert found.tokens > 2 * config.vllm.max_model_len  # and the longest answers never wait for each other
    assert sum(item.bytes for item in found.items) + found.kv <= card * GIB


def test_every_profile_of_a_card_is_tested() -> None:
    assert {file.stem for file in (ROOT / "conf" / "hardware").glob("*.yaml")} == {*CARDS, "cpu"}


def test_what_takes_more_leaves_less() -> None:
    least = load(["hardware/h100"])
    base = budget(least, 80 * GIB)
    for key in ("vllm.engines_per_gpu=4", "vllm.max_num_batched_tokens=65536", "vllm.reserve_gib=8", "layout.memory_gib=9"):
        assert budget(load(["hardware/h100"], [key]), 80 * GIB).kv < base.kv, key
    assert budget(load(["hardware/h100"], ["layout.device=cpu"]), 80 * GIB).kv > base.kv
    assert budget(least, 80 * GIB, desktop=GIB).kv == base.kv - GIB
    assert budget(load(["hardware/h100"], ["vllm.kv_cache_memory_bytes=1073741824"]), 80 * GIB).kv == 3 * GIB
    assert budget(load(["hardware/h100"], ["vllm.gpu_memory_utilization=0.5"]), 80 * GIB).kv < 40 * GIB


def test_a_card_that_is_too_small_says_so() -> None:
    found = budget(load(["hardware/h100"]), 8 * GIB)
    assert found.kv < 0
    assert found.tokens == found.answers == 0


def test_what_seven_engines_held_on_an_h100() -> None:
    """64.2 GiB with 32 of KV cache: 3 of 1,024 places with this tower, 4 of 256 with vLLM's own, 16,384 tokens a step."""
    shape = Shape()
    ours = 2 * shape.parameters + tower_bytes(shape) + step_bytes(shape, 16_384, 1024)
    theirs = 2 * shape.parameters + step_bytes(shape, 16_384, 256)
    counted = 3 * ours + 4 * theirs + 7 * 1.65 * GIB + 32 * GIB
    assert abs(counted / GIB - 64.2) < 1


def test_layout_takes_of_the_card_only_where_it_runs_there() -> None:
    assert layout_bytes(load()) == 0  # the embedded engine
    on_card = ["layout.engine=transformers"]
    assert 0.5 * GIB < layout_bytes(load(settings=on_card)) < 2 * GIB
    assert layout_bytes(load(settings=[*on_card, "layout.memory_gib=2"])) == 2 * GIB
    assert layout_bytes(load(settings=[*on_card, "layout.device=cpu"])) == 0
