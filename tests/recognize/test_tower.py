"""The packed vision tower against vLLM's own, on CPU, with a small model. Runs where vLLM is (its own environment)."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.benches.tower import build
from tests.recognize.towers import write_model

torch = pytest.importorskip("torch", reason="PyTorch is in the vLLM environment only")
pytest.importorskip("vllm", reason="vLLM is in an environment of its own")
if torch.cuda.is_available():
    pytest.skip("these models are on the CPU; vLLM's CUDA build picks kernels that are not", allow_module_level=True)

BITS = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of the norm: 24, 11 and 8 bits through three layers
MIXED = [(1, 2, 2), (1, 24, 24), (1, 2, 40), (1, 30, 6), (1, 8, 2), (1, 54, 4), (1, 24, 24)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    built: dict[str, Any] = {}
    folder = write_model(tmp_path_factory.mktemp("tiny"))

    def model(dtype: str) -> Any:
        if dtype not in built:
            built[dtype] = build(folder, dtype)
        return built[dtype]

    return model


def crops(grids: list[tuple[int, int, int]], seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (t * h * w, 3, 14, 14), generator=generator, dtype=torch.uint8) for t, h, w in grids]


def apart(ours: Any, theirs: Any) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def embed(model: Any, patches: list[Any], grids: list[tuple[int, int, int]]) -> Any:
    """As an engine asks."""
    with torch.inference_mode():
        return model.embed_multimodal(pixel_values=patches, image_grid_thw=torch.tensor(grids))


@pytest.mark.parametrize("dtype", BITS)
def test_each_crop_is_upstreams(models: Any, dtype: str) -> None:
    model, patches = models(dtype), crops(MIXED)
    packed = embed(model, patches, MIXED)
    assert model.refusal is None
    assert model._tower is not None
    with torch.inference_mode():
        for ours, crop, grid in zip(packed, patches, MIXED, strict=True):
            (theirs,) = model.encode_upstream([crop], [grid])
            assert ours.shape == (len(crop) // 4, 64)
            assert ours.dtype == model.visual.dtype
            assert apart(ours, theirs) < BITS[dtype], grid


def test_a_crop_does_not_depend_on_its_neighbours(models: Any) -> None:
    model, patches = models("float32"), crops(MIXED)
    together = embed(model, patches, MIXED)
    for n, grid in enumerate(MIXED):
        (alone,) = embed(model, [patches[n]], [grid])
        assert apart(together[n], alone) < 1e-5
    assert apart(together[1], together[6]) > 0.1  # same grid, other pixels


def test_frames_of_one_grid(models: Any) -> None:
    """Several frames attend to each other, each with its own positions: upstream's way with t > 1."""
    model, grids = models("float32"), [(3, 4, 6), (1, 6, 4), (2, 2, 8)]
    patches = crops(grids)
    packed = embed(model, patches, grids)
    with torch.inference_mode():
        for ours, crop, grid in zip(packed, patches, grids, strict=True):
            (theirs,) = model.encode_upstream([crop], [grid])
            assert apart(ours, theirs) < 1e-5, grid


def test_bytes_and_floats_in_one_step(models: Any) -> None:
    from pipelines.recognize.pack import normalise

    model, patches = models("float32"), crops(MIXED)
    mixed = [torch.from_numpy(normalise(p.numpy(), model.patch_format)) if n % 3 else p for n, p in enumerate(patches)]
    for ours, theirs in zip(embed(model, mixed, MIXED), embed(model, patches, MIXED), strict=True):
        assert torch.equal(ours, theirs)


def test_equal_crops_arrive_stacked(models: Any) -> None:
    model, grids = models("float32"), [(1, 4, 6)] * 3
    patches = crops(grids)
    for ours, theirs in zip(embed(model, torch.stack(patches), grids), embed(model, patches, grids), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", BITS)
def test_every_byte_is_normalised_as_upstream_does(models: Any, dtype: str) -> None:
    """Bit for bit: float32 by the Hugging Face processor's arithmetic, then rounded as vLLM rounds its float inputs."""
    from pipelines.recognize import tower_plain
    from pipelines.recognize.pack import byte_table, normalise

    model = models(dtype)
    every = torch.arange(256, dtype=torch.uint8).repeat(3 * 196 // 4)[: 196 * 3 * 49].view(49, 3, 14, 14)
    every = torch.cat((every, torch.arange(256, dtype=torch.uint8)[None, None, :196].expand(1, 3, 196).reshape(1, 3, 14, 14)))
    table = torch.from_numpy(byte_table(model.patch_format)).to(model.visual.dtype)
    ours = tower_plain.floats(every, table, 640)
    theirs = torch.from_numpy(normalise(every.numpy(), model.patch_format)).to(model.visual.dtype).flatten(1)
    assert {int(v) for v in every.flatten()} == set(range(256))
    assert torch.equal(ours[:, :588], theirs)
    assert not ours[:, 588:].any()


def test_five_thousand_grids_leave_nothing_behind(models: Any) -> None:
    model = models("float32")
    embed(model, crops([(1, 4, 4)]), [(1, 4, 4)])

    def held() -> int:
        gc.collect()
        return sum(o.numel() * o.element_size() for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter))

    before, grids = held(), [(1, 2 * (n % 71 + 1), 2 * (n // 71 + 1)) for n in range(5000)]
    assert len(set(grids)) == 5000
    small = [(1, h if h * w <= 64 else 2, w if h * w <= 64 else 2) for _, h, w in grids]
    with torch.inference_mode():
        for start in range(0, 5000, 500):  # geometry and positions of all of them; pixels of the small ones only
            for grid in grids[start : start + 500 : 5]:
                model._tower._geometry([grid], [grid[1] * grid[2]])
            embed(model, crops(small[start : start + 500]), small[start : start + 500])
    assert held() == before


@pytest.mark.parametrize("act", ["gelu_pytorch_tanh", "gelu", "quick_gelu"])
@pytest.mark.parametrize("heads", [2, 3])
def test_heads_and_activation_follow_the_configuration(tmp_path: Path, act: str, heads: int) -> None:
    model = build(write_model(tmp_path, heads=heads, act=act), "float32")
    packed = embed(model, crops(MIXED[:3]), MIXED[:3])
    assert model._tower is not None
    with torch.inference_mode():
        for ours, theirs in zip(packed, model.encode_upstream(crops(MIXED[:3]), MIXED[:3]), strict=True):
            assert apart(ours, theirs) < 1e-5


@pytest.mark.parametrize(("version", "asked"), [(3, {"num_splits": 1}), (2, {})])
def test_keys_of_a_crop_are_not_split_where_the_library_would(
    monkeypatch: pytest.MonkeyPatch, version: int, asked: dict[str, int]
) -> None:
    """FlashAttention 3 decides by the longest crop as if it were alone; an older one is left as it is."""
    from vllm.v1.attention.backends import fa_utils

    from pipelines.recognize.tower import attention_of

    given: dict[str, Any] = {}

    def flash(q: Any, k: Any, v: Any, **arguments: Any) -> Any:
        given.update(arguments)
        return q

    monkeypatch.setattr(fa_utils, "flash_attn_varlen_func", flash, raising=False)
    upstream = SimpleNamespace(attn_backend=SimpleNamespace(name="FLASH_ATTN"), scale=0.5, _fa_version=version)
    attended = attention_of(upstream)(torch.zeros(10, 3, 2, 8), torch.tensor([0, 4, 10], dtype=torch.int32), [4, 6])
    assert attended.shape == (10, 16)
    assert {name: value for name, value in given.items() if name == "num_splits"} == asked
    assert (given["max_seqlen_q"], given["max_seqlen_k"], given["softmax_scale"], given["fa_version"]) == (6, 6, 0.5, version)


def test_passes_are_bounded_and_keep_the_order() -> None:
    from pipelines.recognize.tower import passes

    generator = torch.Generator().manual_seed(1)
    for count in (1, 7, 300):
        lengths = torch.randint(100, 5121, (count,), generator=generator).tolist()
        parts = list(passes(lengths, 16_384))
        assert [n for part in parts for n in range(count)[part]] == list(range(count))
        assert all(0 < sum(lengths[part]) <= 16_384 for part in parts)
        assert len(parts) <= 1.4 * sum(lengths) / 16_384 + 1
    assert list(passes([20_000, 4, 4], 16_384)) == [slice(0, 1), slice(1, 3)]
    assert list(passes([], 16_384)) == []


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def said() -> Any:
    handler, log = _Said(), logging.getLogger("pagemill")
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


def test_another_upstream_source_runs_upstreams_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    from pipelines.recognize import vllm_model

    monkeypatch.setattr(vllm_model, "VERIFIED", {"0000": "0.0.1"})
    model = build(write_model(tmp_path), "float32")
    for _ in range(3):
        embedded = embed(model, crops(MIXED[:2]), MIXED[:2])
    assert model._tower is None
    assert [len(e) for e in embedded] == [1, 144]
    assert len([line for line in said if "packed_tower_off" in line]) == 1


def test_weights_on_which_it_disagrees_run_upstreams_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    from pipelines.recognize import tower_plain

    monkeypatch.setattr(tower_plain, "rotate_", lambda qkv, cos, sin: None)  # as if upstream had another rotation
    model = build(write_model(tmp_path), "float32")
    for _ in range(2):
        embed(model, crops(MIXED[:2]), MIXED[:2])
    assert model._tower is None
    assert "disagrees" in model.refusal
    assert len(said) == 1


def test_what_was_not_verified_is_refused(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from pipelines.recognize.vllm_model import UPSTREAM, _refusal

    model = models("float32")
    good = {"tensor_parallel_size": 1, "lora": None, "dtype": torch.float32, "additional": {}}

    def asked(**changed: Any) -> str | None:
        now = good | changed
        return _refusal(
            model,
            SimpleNamespace(
                parallel_config=SimpleNamespace(tensor_parallel_size=now["tensor_parallel_size"]),
                lora_config=now["lora"],
                additional_config=now["additional"],
                model_config=SimpleNamespace(dtype=now["dtype"]),
            ),
        )

    assert asked() is None
    assert asked(additional={UPSTREAM: "they were seen to differ"}) == "they were seen to differ"
    assert asked(tensor_parallel_size=2) == "tensor parallelism"
    assert asked(lora=object()) == "LoRA"
    assert "dtype" in str(asked(dtype=torch.float64))
    layer = model.visual.vision_model.encoder.layers[1]
    with monkeypatch.context() as patch:
        patch.setattr(layer.mlp.fc1, "quant_method", object())
        assert "quantised" in str(asked())
    with monkeypatch.context() as patch:
        patch.setattr(layer.self_attn.attn, "attn_backend", SimpleNamespace(name="FLASHINFER"))
        assert "attention" in str(asked())
