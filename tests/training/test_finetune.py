"""`finetune` from a JSONL file to a checkpoint that loads and reads better; resumed training is the same training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import ConfigError
from tests.conftest import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is in the environment of vLLM")
transformers = pytest.importorskip("transformers", reason="transformers is in the environment of vLLM")
pytest.importorskip("pymupdf_fonts", reason="the training's type faces are in the extra `synth`")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="safetensors is in the environment of vLLM")
pytest.importorskip("tensorboard", reason="tensorboard is in the extra `train`")

from tests.training.renders import fresh
from training import distributed
from training.finetune import BadData, Job, complete_model, finetune
from training.loop import checkpoints
from training.recipe import Recipe
from training.save import NEEDED
from training.sft import Turn, line_of

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"
RECIPE: dict[str, Any] = {
    "max_seq_len": 512, "max_patches": 768, "packing_size": 4, "gradient_accumulation_steps": 1, "max_steps": 6,
    "learning_rate": 3e-4, "warmup_steps": 1, "min_lr": 1e-5, "weight_decay": 0.0, "recompute": True, "min_pixels": 784,
    "max_pixels": 200704, "dataloader_num_workers": 0, "save_steps": 3,
}  # fmt: skip


def write(folder: Path, count: int, shout: bool = False) -> Path:
    """Lines of text with their truth, or with a truth that must be learnt first: all in capitals."""
    folder.mkdir(exist_ok=True)
    lines = []
    for number, render in enumerate(fresh("line", count, seed=77)):
        Image.fromarray(render.pixels).save(folder / f"{number}.png")
        answer = render.answer.upper() if shout else render.answer
        lines.append(line_of([Turn(render.prompt, (f"{number}.png",), answer)]))
    (folder / "train.jsonl").write_text("\n".join(lines), "utf-8")
    return folder / "train.jsonl"


def job(data: Path, output: Path, **changes: Any) -> Job:
    return Job(data, output, FIXTURE, Recipe(**{**RECIPE, **changes}), log=lambda line: None)


def weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = safetensors_torch.load_file(folder / "model.safetensors")
    return found


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_learns_what_it_is_given_and_writes_what_loads(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 8, shout=True)
    asked = job(data, tmp_path / "out", max_steps=24)
    rates = finetune(Job(data, asked.output, FIXTURE, asked.recipe, evaluation=data, log=asked.log))
    assert rates["after"]["loss"] < 0.5 * rates["before"]["loss"]
    assert rates["after"]["tokens"] > rates["before"]["tokens"] + 0.1
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir() if p.is_file()} >= set(NEEDED) - {"inference.yml"}
    loaded = transformers.PaddleOCRVLForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    assert all(name.startswith(("visual.", "mlp_AR.", "model.", "lm_head.")) for name in weights(out))
    assert set(weights(out)) == set(weights(FIXTURE))
    embeddings = loaded.model.language_model.embed_tokens.weight.half()
    assert bool((embeddings != weights(FIXTURE)["model.embed_tokens.weight"]).any())
    report = json.loads((out / "training" / "report.json").read_text())
    assert report["evaluation"]["after"] == rates["after"]
    assert list((out / "training" / "tensorboard").glob("events.*"))


def test_a_resumed_training_is_the_same_training(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 9)
    finetune(job(data, tmp_path / "whole"))
    finetune(job(data, tmp_path / "cut"))
    for late in checkpoints(tmp_path / "cut" / "training")[1:]:
        shutil.rmtree(late)  # as if it had been killed after step 3
    assert [p.name for p in checkpoints(tmp_path / "cut" / "training")] == ["checkpoint-3"]
    (tmp_path / "cut" / "model.safetensors").unlink()
    finetune(job(data, tmp_path / "cut"))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_an_output_layer_of_its_own_survives(tmp_path: Path) -> None:
    """transformers ties it to the embeddings, whatever a flat config.json says."""
    from training.save import load_model, save_checkpoint

    own = tmp_path / "own"
    shutil.copytree(FIXTURE, own)
    config = json.loads((own / "config.json").read_text()) | {"tie_word_embeddings": False}
    (own / "config.json").write_text(json.dumps(config))
    given = weights(FIXTURE) | {"lm_head.weight": torch.randn(config["vocab_size"], config["hidden_size"]).half()}
    safetensors_torch.save_file(given, own / "model.safetensors")
    assert save_checkpoint(load_model(own), tmp_path / "again", own, "float16") == ["inference.yml"]
    again = weights(tmp_path / "again")
    assert set(again) == set(given)
    assert all(torch.equal(again[name], given[name]) for name in given)


def test_bad_data_trains_nothing(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 3)
    lines = data.read_text("utf-8").splitlines()
    data.write_text("\n".join([lines[0], lines[1].replace("no_mask", "nomask"), lines[2]]), "utf-8")
    with pytest.raises(BadData, match=r"1 problems:\n  line 2: text_info\[1\].tag"):
        finetune(job(data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_sample_that_fits_no_batch_is_named(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 4)
    with pytest.raises(BadData, match=r"line \d: \d+ tokens .* holds 64 "):
        finetune(job(data, tmp_path / "out", max_seq_len=64))


def test_what_a_model_lacks_comes_from_the_base_model_and_is_named(tmp_path: Path) -> None:
    bare, base = tmp_path / "bare", tmp_path / "base"
    shutil.copytree(FIXTURE, bare)
    shutil.copytree(FIXTURE, base)
    (base / "inference.yml").write_text("Global: {}\n")
    for name in ("chat_template.jinja", "preprocessor_config.json"):
        (bare / name).unlink()
    said: list[str] = []
    asked = Job(tmp_path / "x.jsonl", tmp_path / "out", bare, Recipe(), base_model=base, log=said.append)
    completed = complete_model(asked)
    assert completed.model != bare
    assert {p.name for p in completed.model.iterdir()} >= set(NEEDED)
    assert len(said) == 1
    for name in ("chat_template.jinja", "preprocessor_config.json", "inference.yml"):
        assert name in said[0]


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a checkpoint directory"):
        complete_model(Job(tmp_path / "x", tmp_path / "out", tmp_path, Recipe()))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_workers_take_the_steps_of_one(tmp_path: Path) -> None:
    """Through Ray Train, gradients over gloo: the same packed sequences, so the same weights as with accumulation."""
    ray = pytest.importorskip("ray", reason="Ray is in the environment of vLLM")
    data = write(tmp_path / "data", 12)
    finetune(job(data, tmp_path / "one", max_steps=3, gradient_accumulation_steps=2))
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    try:
        asked = job(data, tmp_path / "two", max_steps=3)
        distributed.run(Job(asked.data, asked.output, asked.model, asked.recipe), workers=2, gpu=False)
    finally:
        ray.shutdown()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    moved = {name: (one[name] - weights(FIXTURE)[name]).abs().max() for name in one}
    assert max(moved.values()) > 1e-4
    for name in one:
        assert torch.allclose(one[name].float(), two[name].float(), atol=2e-3), name
    assert json.loads((tmp_path / "two" / "training" / "report.json").read_text())["steps"] == 3
