"""What a layout checkpoint says of itself, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ConfigError
from pipelines.layout.checkpoint import read_checkpoint, weights_hash
from pipelines.layout.labels import OFFICIAL_LABELS

CONFIG: dict[str, Any] = {"model_type": "pp_doclayout_v3", "id2label": dict(enumerate(OFFICIAL_LABELS))}
PROCESSOR: dict[str, Any] = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": {"height": 800, "width": 640}}
COLLAPSED = {5: "formula", 9: "footer", 13: "header", 15: "formula", 23: "text"}


def folder(path: Path, config: dict[str, Any] = CONFIG, processor: dict[str, Any] = PROCESSOR, labels: str = "") -> Path:
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    if labels:
        (path / "inference.yml").write_text(labels)
    return path


def test_everything_comes_from_the_files(tmp_path: Path) -> None:
    found = read_checkpoint(
        folder(tmp_path, processor=PROCESSOR | {"image_mean": [0.5, 0.25, 0.125], "rescale_factor": 1 / 127.5})
    )
    assert (found.architecture, found.height, found.width) == ("PP-DocLayoutV3", 800, 640)
    assert found.labels == OFFICIAL_LABELS
    assert found.mean == pytest.approx((0.25, 0.125, 0.0625))  # of values from 0 to 1, not of rescaled ones
    assert found.std == pytest.approx((0.5, 0.5, 0.5))


def test_without_normalisation_pixels_stay_as_they_are(tmp_path: Path) -> None:
    odd = PROCESSOR | {"image_mean": [9, 9, 9], "do_normalize": False}
    found = read_checkpoint(folder(tmp_path, processor=odd))
    assert (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))


def test_collapsed_names_give_way_to_class_numbers(tmp_path: Path) -> None:
    names = dict(enumerate(OFFICIAL_LABELS)) | COLLAPSED
    assert read_checkpoint(folder(tmp_path, CONFIG | {"id2label": names})).labels == OFFICIAL_LABELS


def test_the_label_list_of_inference_yml_is_believed(tmp_path: Path) -> None:
    labels = "label_list:\n" + "".join(f"- c{number}\n" for number in range(25))
    assert read_checkpoint(folder(tmp_path, labels=labels)).labels[24] == "c24"


@pytest.mark.parametrize(
    ("config", "processor", "labels", "words"),
    [
        ({"model_type": "detr"}, PROCESSOR, "", "model_type 'detr'"),
        (CONFIG, {"size": {"height": 800, "width": 800}}, "", "image_mean"),
        (CONFIG, PROCESSOR | {"size": 800}, "", "preprocessor_config.json"),
        (CONFIG, PROCESSOR, "label_list: [text, table]\n", "2 labels for 25 classes"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, config: dict[str, Any], processor: dict[str, Any], labels: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_checkpoint(folder(tmp_path, config, processor, labels))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        read_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="no model in"):
        weights_hash(tmp_path)


def test_the_hash_is_of_what_decides(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = weights_hash(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert weights_hash(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert weights_hash(tmp_path) != before
