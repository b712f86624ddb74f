"""Every constant of a PaddleOCR-VL checkpoint that this code relies on, held against what it assumes.

A fine-tuned or converted checkpoint may differ in any of them and still load: text gets worse, or tables come out empty, and
nothing says so. Invariant: pure (files are parsed, no model is loaded); a constant is named with the file that it stands in,
what was found, what is assumed, and what follows from the difference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.errors import ConfigError
from pipelines.layout.labels import OFFICIAL_LABELS
from pipelines.recognize.checkpoint import PLACEHOLDER, chat_format, read_template

Effect = Literal["used", "upstream", "broken"]
EFFECTS: dict[Effect, str] = {
    "used": "the checkpoint's own value is used",
    "upstream": "upstream's code runs instead of the packed vision tower",
    "broken": "answers would be wrong; repair the checkpoint",
}

_MEANS = ([0.5] * 3, [0.48145466, 0.4578275, 0.40821073])
_STDS = ([0.5] * 3, [0.26862954, 0.26130258, 0.27577711])
_OTSL = ("<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>")
_SPECIAL = (PLACEHOLDER, "<|IMAGE_START|>", "<|IMAGE_END|>", "<|begin_of_sentence|>", "</s>")
_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(slots=True, frozen=True)
class Difference:
    """One constant that is not what the code assumes."""

    file: str
    name: str
    found: Any
    assumed: Any
    effect: Effect
    why: str = ""

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        return f"{self.file}: {self.name} is {self.found!r}, assumed {self.assumed!r}{why}: {EFFECTS[self.effect]}"


def differences(folder: Path) -> list[Difference]:
    """All of a checkpoint directory; the worst first.

    Raises:
        ConfigError: a file is missing or is no JSON.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{folder}: {', '.join(missing)} missing: is it a PaddleOCR-VL checkpoint?")
    config, processor, tokenizer, _ = (_json(folder / name) for name in _FILES)
    found = [*_model(config), *_pictures(config, processor), *_tokens(config, tokenizer), *_template(folder), *_labels(folder)]
    order = list(reversed(EFFECTS))
    return sorted(found, key=lambda difference: order.index(difference.effect))


def worst(found: list[Difference]) -> Effect:
    """What follows from all of them together."""
    effects = {difference.effect for difference in found}
    return "broken" if "broken" in effects else "upstream" if "upstream" in effects else "used"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected an object, found {type(content).__name__}")
    return content


# -- config.json --------------------------------------------------------------------------------------------------------


def _model(config: Mapping[str, Any]) -> Iterator[Difference]:
    text = {**config, **(config.get("text_config") or {})}
    vision = config.get("vision_config") or {}
    file = "config.json"

    def expect(name: str, found: Any, assumed: Any, effect: Effect, why: str = "") -> Iterator[Difference]:
        if found != assumed:
            yield Difference(file, name, found, assumed, effect, why)

    yield from expect("model_type", config.get("model_type"), "paddleocr_vl", "broken", "another architecture")
    yield from expect("vision_config.patch_size", vision.get("patch_size", 14), 14, "upstream", "crops are cut to it")
    yield from expect(
        "vision_config.spatial_merge_size", vision.get("spatial_merge_size", 2), 2, "upstream", "patches to a token"
    )
    yield from expect("vision_config.num_channels", vision.get("num_channels", 3), 3, "broken", "crops are RGB")
    activation = vision.get("hidden_act", "gelu_pytorch_tanh")
    yield from expect("vision_config.hidden_act", activation, "gelu_pytorch_tanh", "used", "the fused one is for tanh GELU alone")
    yield from expect("vision_config.layer_norm_eps", vision.get("layer_norm_eps", 1e-6), 1e-6, "used")
    yield from expect("hidden_act", text.get("hidden_act", "silu"), "silu", "used")
    yield from expect("rms_norm_eps", text.get("rms_norm_eps", 1e-5), 1e-5, "used")
    tied = config.get("tie_word_embeddings", True)
    why = "transformers 5 and vLLM tie them all the same and ignore lm_head.weight"
    yield from expect("tie_word_embeddings", tied, True, "used", why)
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    theta = text.get("rope_theta", rope.get("rope_theta"))
    yield from expect("rope_theta", theta, 500000, "used")
    section, half = rope.get("mrope_section"), int(text.get("head_dim") or 128) // 2
    if not isinstance(section, list) or sum(section) != half:
        yield Difference(file, "mrope_section", section, f"three numbers that sum to {half}", "broken", "half of head_dim")


# -- preprocessor_config.json -------------------------------------------------------------------------------------------


def _pictures(config: Mapping[str, Any], processor: Mapping[str, Any]) -> Iterator[Difference]:
    file = "preprocessor_config.json"
    vision = config.get("vision_config") or {}
    for name, known in (("image_mean", _MEANS), ("image_std", _STDS)):
        value = processor.get(name)
        if not isinstance(value, list) or len(value) != 3:
            yield Difference(file, name, value, "three numbers", "broken", "pictures cannot be normalised")
        elif not any(_close(value, each) for each in known):
            yield Difference(file, name, value, known[0], "used", "no release has it")
    for name, same in (("patch_size", "patch_size"), ("merge_size", "spatial_merge_size")):
        value, wanted = processor.get(name, {"patch_size": 14, "merge_size": 2}[name]), vision.get(same, processor.get(name))
        if value != wanted:
            yield Difference(file, name, value, wanted, "broken", f"config.json has another vision_config.{same}")
    for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if processor.get(name, True) is not True:
            yield Difference(file, name, processor[name], True, "upstream", "crops are prepared so outside the engine")
    if processor.get("temporal_patch_size", 1) != 1:
        yield Difference(file, "temporal_patch_size", processor["temporal_patch_size"], 1, "broken", "single pictures are read")
    if not math.isclose(processor.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        yield Difference(file, "rescale_factor", processor["rescale_factor"], 1 / 255, "used", "bytes to 0..1")
    if processor.get("resample", 3) != 3:
        yield Difference(file, "resample", processor["resample"], 3, "used", "Pillow's number; 3 is bicubic")


def _close(left: list[float], right: list[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(left, right, strict=True))


# -- tokenizer.json and what names its numbers --------------------------------------------------------------------------


def _tokens(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> Iterator[Difference]:
    file = "tokenizer.json"
    added = {entry["content"]: entry for entry in tokenizer.get("added_tokens") or []}
    text = {**config, **(config.get("text_config") or {})}
    for token in _OTSL:
        if token not in added:
            yield Difference(file, token, "absent", "a token", "broken", "tables are written with it")
        elif added[token].get("special"):
            why = "skip_special_tokens would take it out of every table"
            yield Difference(file, f"{token} special", True, False, "broken", why)
    for token in _SPECIAL:
        if token not in added:
            yield Difference(file, token, "absent", "a special token", "broken", "the prompt is written with it")
        elif not added[token].get("special"):
            yield Difference(file, f"{token} special", False, True, "broken", "it would stay in answers")
    for token, entry in added.items():
        if token.startswith("<|LOC_") and not entry.get("special"):
            yield Difference(file, f"{token} special", False, True, "used", "places would show in answers that ask for none")
            break
    for name, token in (
        ("image_token_id", PLACEHOLDER), ("vision_start_token_id", "<|IMAGE_START|>"),
        ("vision_end_token_id", "<|IMAGE_END|>"), ("eos_token_id", "</s>"),
    ):  # fmt: skip
        number, value = added.get(token, {}).get("id"), text.get(name)
        if number is not None and value is not None and value != number:
            yield Difference("config.json", name, value, number, "broken", f"{token} has that number in tokenizer.json")


# -- the chat template and inference.yml --------------------------------------------------------------------------------


def _template(folder: Path) -> Iterator[Difference]:
    try:
        found = chat_format(read_template(folder))
    except ConfigError as error:
        yield Difference("chat_template", "template", str(error), "v1's or 1.5's", "broken")
        return
    wanted = "<|begin_of_sentence|>User: <|IMAGE_START|>", "<|IMAGE_END|>"
    if (found.before, found.between) != wanted:
        yield Difference("chat_template", "template", found.prompt("OCR:"), wanted[0] + PLACEHOLDER + wanted[1], "used", "words")


def _labels(folder: Path) -> Iterator[Difference]:
    """PaddleX reads names of layout classes from here, where a directory holds both models."""
    file = folder / "inference.yml"
    if not file.is_file():
        return
    try:
        told = yaml.safe_load(file.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {error}") from None
    labels = told.get("label_list") if isinstance(told, dict) else None
    if labels is not None and tuple(map(str, labels)) != OFFICIAL_LABELS:
        odd = [f"{n}: {label}" for n, label in enumerate(labels) if n >= 25 or str(label) != OFFICIAL_LABELS[n]] or ["too few"]
        why = "classes go by number, with the official names"
        yield Difference("inference.yml", "label_list", ", ".join(odd[:4]), "the 25 official classes", "used", why)
