"""A checkpoint with any one constant altered: named, with what follows; an unaltered one: nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ConfigError
from pipelines.layout.labels import OFFICIAL_LABELS
from pipelines.recognize.constants import Effect, differences, worst
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The fixture without weights, with the released models' base of M-RoPE (the small one's is its own)."""
    folder = tmp_path / "model"
    shutil.copytree(FIXTURE, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    alter(folder, "config.json", lambda c: c.update(rope_theta=500000))
    return folder


def alter(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / name).read_text("utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), "utf-8")


def added(content: dict[str, Any], token: str) -> dict[str, Any]:
    return next(entry for entry in content["added_tokens"] if entry["content"] == token)


def without(content: dict[str, Any], token: str) -> None:
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] != token]


C, P, T = "config.json", "preprocessor_config.json", "tokenizer.json"
ALTERED: list[tuple[str, Callable[[dict[str, Any]], Any], str, Effect]] = [
    (C, lambda c: c.update(model_type="qwen2_vl"), "model_type", "broken"),
    (C, lambda c: c["vision_config"].update(patch_size=16), "vision_config.patch_size", "broken"),
    (C, lambda c: c["vision_config"].update(spatial_merge_size=4), "vision_config.spatial_merge_size", "broken"),
    (C, lambda c: c["vision_config"].update(num_channels=1), "vision_config.num_channels", "broken"),
    (C, lambda c: c["vision_config"].update(hidden_act="gelu"), "vision_config.hidden_act", "used"),
    (C, lambda c: c["vision_config"].update(layer_norm_eps=1e-5), "vision_config.layer_norm_eps", "used"),
    (C, lambda c: c.update(hidden_act="gelu"), "hidden_act", "used"),
    (C, lambda c: c.update(rms_norm_eps=1e-6), "rms_norm_eps", "used"),
    (C, lambda c: c.update(rope_theta=10000), "rope_theta", "used"),
    (C, lambda c: c.update(tie_word_embeddings=False), "tie_word_embeddings", "used"),
    (C, lambda c: c["rope_scaling"].update(mrope_section=[8, 6, 6]), "mrope_section", "broken"),
    (C, lambda c: c.update(image_token_id=5), "image_token_id", "broken"),
    (C, lambda c: c.update(vision_start_token_id=5), "vision_start_token_id", "broken"),
    (C, lambda c: c.update(vision_end_token_id=5), "vision_end_token_id", "broken"),
    (C, lambda c: c.update(eos_token_id=5), "eos_token_id", "broken"),
    (P, lambda c: c.update(image_mean=[0.1, 0.2, 0.3]), "image_mean", "used"),
    (P, lambda c: c.pop("image_mean"), "image_mean", "broken"),
    (P, lambda c: c.update(image_std=[0.1, 0.2, 0.3]), "image_std", "used"),
    (P, lambda c: c.update(image_std=0.5), "image_std", "broken"),
    (P, lambda c: c.update(patch_size=16), "patch_size", "broken"),
    (P, lambda c: c.update(merge_size=1), "merge_size", "broken"),
    (P, lambda c: c.update(rescale_factor=1.0), "rescale_factor", "used"),
    (P, lambda c: c.update(resample=2), "resample", "used"),
    (P, lambda c: c.update(temporal_patch_size=2), "temporal_patch_size", "broken"),
    (P, lambda c: c.update(do_resize=False), "do_resize", "upstream"),
    (P, lambda c: c.update(do_rescale=False), "do_rescale", "upstream"),
    (P, lambda c: c.update(do_normalize=False), "do_normalize", "upstream"),
    (P, lambda c: c.update(do_convert_rgb=False), "do_convert_rgb", "upstream"),
    *[(T, lambda c, t=t: added(c, t).update(special=True), f"{t} special", "broken") for t in ("<fcel>", "<ecel>", "<nl>")],
    (T, lambda c: without(c, "<xcel>"), "<xcel>", "broken"),
    *[
        (T, lambda c, t=t: added(c, t).update(special=False), f"{t} special", "broken")
        for t in ("<|IMAGE_PLACEHOLDER|>", "<|IMAGE_START|>", "<|IMAGE_END|>", "</s>", "<|begin_of_sentence|>")
    ],
    (T, lambda c: without(c, "<|IMAGE_START|>"), "<|IMAGE_START|>", "broken"),
    (T, lambda c: c["added_tokens"].append({"id": 999, "content": "<|LOC_3|>", "special": False}), "<|LOC_3|> special", "used"),
]  # fmt: skip


def test_an_unaltered_checkpoint_differs_in_nothing(model: Path) -> None:
    assert differences(model) == []
    assert worst([]) == "used"


@pytest.mark.parametrize(("file", "change", "name", "effect"), ALTERED, ids=[f"{row[0]}-{row[2]}" for row in ALTERED])
def test_each_altered_constant_is_named(
    model: Path, file: str, change: Callable[[dict[str, Any]], Any], name: str, effect: Effect
) -> None:
    alter(model, file, change)
    found = differences(model)
    assert name in [difference.name for difference in found]
    assert worst(found) == effect
    assert all(f"{difference.file}: {difference.name} is " in str(difference) for difference in found)


def test_patches_that_both_files_have_otherwise_run_on_upstreams_code(model: Path) -> None:
    alter(model, C, lambda c: c["vision_config"].update(patch_size=16))
    alter(model, P, lambda c: c.update(patch_size=16))
    assert [(d.name, d.effect) for d in differences(model)] == [("vision_config.patch_size", "upstream")]


def test_the_means_of_both_sources_are_known(model: Path) -> None:
    clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    alter(model, P, lambda c: c.update(clip))
    assert differences(model) == []


def test_templates(model: Path) -> None:
    template = (model / "chat_template.jinja").read_text("utf-8")
    (model / "chat_template.jinja").write_text(template.replace("Assistant:\\n", "Answer: "))
    assert worst(differences(model)) == "broken"
    (model / "chat_template.jinja").write_text(template.replace("User: ", "Human: "))
    assert [(d.name, d.effect) for d in differences(model)] == [("template", "used")]
    (model / "chat_template.jinja").unlink()
    assert "no chat template" in str(differences(model)[0])


def test_labels(model: Path) -> None:
    (model / "inference.yml").write_text(json.dumps({"label_list": list(OFFICIAL_LABELS)}))
    assert differences(model) == []
    collapsed = ["formula" if "formula" in label else label for label in OFFICIAL_LABELS]
    (model / "inference.yml").write_text(json.dumps({"label_list": collapsed}))
    (found,) = differences(model)
    assert (found.name, found.effect) == ("label_list", "used")
    assert "5: formula" in str(found)


def test_the_worst_comes_first(model: Path) -> None:
    alter(model, P, lambda c: c.update(resample=2, do_resize=False, temporal_patch_size=2))
    assert [d.effect for d in differences(model)] == ["broken", "upstream", "used"]


def test_what_is_no_checkpoint_is_said(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json.* missing"):
        differences(tmp_path)
    (model / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        differences(model)
