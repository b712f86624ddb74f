"""Checkpoints as the hub has them: the weight names that vLLM and PaddleX read, and every file that a reader needs.

Invariant: a directory written here is complete, or what it lacks is named; nothing is filled in silently.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

# transformers 5's names of modules, and the released checkpoints'
_RENAMED = (("model.visual.", "visual."), ("model.projector.", "mlp_AR."), ("model.language_model.", "model."))

# What the released directories hold beside weights, and who reads it.
NEEDED = {
    "config.json": "transformers, vLLM",
    "generation_config.json": "transformers, vLLM",
    "preprocessor_config.json": "transformers, vLLM",
    "tokenizer.json": "transformers, vLLM",
    "tokenizer_config.json": "transformers, vLLM",
    "chat_template.jinja": "transformers, vLLM",
    "inference.yml": "PaddleX",
}
_ALSO = ("processor_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "chat_template.json")


def hub_name(name: str) -> str:
    """The name of a weight of transformers 5 in a released checkpoint."""
    for ours, theirs in _RENAMED:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


def load_model(folder: Path) -> Any:
    """A checkpoint in float32, with the output layer of its own that it may have.

    transformers 5 ties embeddings and output layer of a flat config.json whatever it says, and would lose the latter.
    """
    import torch
    from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration

    config = PaddleOCRVLConfig.from_pretrained(folder)
    if json.loads((folder / "config.json").read_text("utf-8")).get("tie_word_embeddings") is False:
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    return PaddleOCRVLForConditionalGeneration.from_pretrained(folder, config=config, dtype=torch.float32, use_safetensors=True)


def save_weights(model: Any, folder: Path, dtype: str) -> None:
    """model.safetensors under the hub's names; `dtype` is torch's name of it, e.g. `bfloat16`."""
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    weights = {hub_name(k): v.detach().to("cpu", kind).contiguous().clone() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


def save_checkpoint(model: Any, folder: Path, base: Path, dtype: str) -> list[str]:
    """Weights, and the other files from `base`. Returns the names of needed files that `base` lacks too."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder, dtype)
    for name in (*NEEDED, *_ALSO):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["torch_dtype"] = dtype
    config.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return [name for name in NEEDED if not (folder / name).is_file()]


def stored_dtype(folder: Path) -> str:
    """The type in which a checkpoint's weights are stored, as its config.json says; bfloat16 where it does not."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")


def complete(model: Path, base: Path, into: Path) -> list[str]:
    """Copies to `into` a checkpoint with what it lacks taken from `base`; returns those names (none: nothing is copied).

    ERNIEKit's output, for one, has weights and config.json and no chat template, no processor, no inference.yml.
    """
    lacking = [name for name in (*NEEDED, *_ALSO) if not (model / name).is_file() and (base / name).is_file()]
    if not lacking:
        return []
    into.mkdir(parents=True, exist_ok=True)
    for file in (p for p in model.iterdir() if p.is_file()):
        shutil.copyfile(file, into / file.name)
    for name in lacking:
        shutil.copyfile(base / name, into / name)
    return lacking
