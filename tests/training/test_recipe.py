"""Hyper-parameters: ERNIEKit's names, its arithmetic of steps, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from training import recipe as recipes
from training.recipe import Recipe

PUBLISHED = """
train_dataset_type: "erniekit"
train_dataset_path: "./examples/data/train.jsonl"
train_dataset_prob: "1.0"
max_seq_len: 16384
num_samples_each_epoch: 6000000
model_name_or_path: PaddlePaddle/PaddleOCR-VL
stage: OCR-VL-SFT
seed: 23
batch_size: 1
packing_size: 8
packing: True
padding: False
num_train_epochs: 2
max_steps: 926
save_steps: 200
gradient_accumulation_steps: 8
warmup_steps: 10
learning_rate: 5.0e-6
lr_scheduler_type: cosine
min_lr: 5e-7
weight_decay: 0.1
adam_beta2: 0.95
recompute: True
compute_type: bf16
amp_custom_white_list:
  - matmul
"""


def test_the_published_recipe_is_accepted_and_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(PUBLISHED)
    found, unused = recipes.load(file)
    assert found == Recipe(max_steps=926, warmup_steps=10)
    assert "amp_custom_white_list" in unused
    assert "train_dataset_path" in unused
    assert "learning_rate" not in unused


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    recipe = Recipe(learning_rate=1.0, min_lr=0.1, warmup_steps=10)
    assert recipe.rate(0, 110) == pytest.approx(0.1)
    assert recipe.rate(9, 110) == 1.0
    assert recipe.rate(60, 110) == pytest.approx(0.55)
    assert recipe.rate(110, 110) == pytest.approx(0.1)
    assert Recipe(learning_rate=1.0, min_lr=0.0, warmup_steps=0, lr_scheduler_type="linear").rate(25, 100) == 0.75
    assert Recipe(learning_rate=1.0).rate(0, 1000) == pytest.approx(0.1)  # a hundredth of the steps: 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat: 1e-5", "unknown key learning_rat; did you mean learning_rate"),
        ("learning_rate: high", "learning_rate: .*got 'high'"),
        ("lr_scheduler_type: step", "lr_scheduler_type"),
        ("- 1", "expected `key: value` lines"),
        ("a: [", "while parsing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        recipes.load(tmp_path / "r.yaml")


def test_settings_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("learning_rate: 1.0e-5")
    found, _ = recipes.load(tmp_path / "r.yaml", {"learning_rate": "2e-5", "packing": "false"})
    assert (found.learning_rate, found.packing) == (2e-5, False)


def test_shipped_recipes_load() -> None:
    folder = Path(recipes.__file__).parents[1] / "conf" / "train"
    names = sorted(p.name for p in folder.glob("*.yaml"))
    assert "tiny.yaml" in names
    for name in names:
        recipes.load(folder / name)
