"""Hyper-parameters, under the names of ERNIEKit's recipe for PaddleOCR-VL, whose YAML is accepted as it is.

Invariant: a key that neither this trainer nor ERNIEKit knows is an error that names the nearest; one that only ERNIEKit
understands (parallelism of Paddle, its mixed-precision lists) is accepted and named in the log as without effect.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import ConfigError

# Of ERNIEKit's recipe, without a counterpart here.
WITHOUT_EFFECT = frozenset(
    re.findall(
        r"\w+",
        """train_dataset_type eval_dataset_type train_dataset_path train_dataset_prob eval_dataset_path eval_dataset_prob
        num_samples_each_epoch use_pic_id sft_replace_ids sft_image_normalize sft_image_rescale image_dtype model_name_or_path
        fine_tuning multimodal use_flash_attention use_sparse_flash_attn stage do_train do_eval distributed_dataloader
        prefetch_factor padding eval_batch_size eval_iters evaluation_strategy save_strategy release_grads logging_dir
        output_dir disable_tqdm layerwise_lr_decay_bound from_scratch tensor_parallel_degree pipeline_parallel_degree
        sharding_parallel_degree sharding sequence_parallel pipeline_parallel_config recompute_granularity
        recompute_use_reentrant fp16_opt_level disable_ckpt_quant amp_master_grad amp_custom_white_list amp_custom_black_list
        unified_checkpoint unified_checkpoint_config convert_from_hf save_to_hf""",
    )
)


class Recipe(BaseModel):
    """Defaults are those of ERNIEKit's published recipe (full fine-tuning of the 0.9B model)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 23
    max_seq_len: int = Field(16384, ge=64)  # tokens of one packed sequence, pictures included
    max_patches: int = Field(65536, ge=64)  # of one packed sequence; 4 patches become a token
    packing: bool = True
    packing_size: int = Field(8, ge=1)  # samples in one packed sequence, at most
    batch_size: int = Field(1, ge=1)  # packed sequences per step and device
    gradient_accumulation_steps: int = Field(8, ge=1)
    num_train_epochs: float = Field(2, gt=0)
    max_steps: int = -1  # -1: from data, batch and accumulation
    warmup_steps: int | None = Field(None, ge=0)  # None: a hundredth of max_steps
    learning_rate: float = Field(5e-6, gt=0)
    min_lr: float = Field(5e-7, ge=0)
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.1, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    compute_type: Literal["bf16", "fp32"] = "bf16"
    recompute: bool = True  # activations of a layer are computed again on the way back: memory for time
    compiled: bool = False  # torch.compile of each layer: pays for thousands of steps
    dataloader_num_workers: int = Field(8, ge=0)
    logging_steps: int = Field(1, ge=1)
    save_steps: int = Field(200, ge=1)
    save_total_limit: int = Field(5, ge=1)
    eval_steps: int = Field(0, ge=0)  # 0: before and after only
    min_pixels: int | None = None  # None: what the pipeline uses (112,896)
    max_pixels: int | None = None  # None: what the pipeline uses (1,003,520)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step number `step` (from 0) of `steps`."""
        warm = self.warmup_steps if self.warmup_steps is not None else round(0.01 * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        share = min(1.0, (step - warm) / max(1, steps - warm))
        if self.lr_scheduler_type == "constant":
            return self.learning_rate
        fall = 0.5 * (1 + math.cos(math.pi * share)) if self.lr_scheduler_type == "cosine" else 1 - share
        return self.min_lr + (self.learning_rate - self.min_lr) * fall


def load(path: Path | None, changes: Mapping[str, Any] | None = None) -> tuple[Recipe, list[str]]:
    """A recipe from YAML, `changes` over it; and the keys that have no effect here.

    Raises:
        ConfigError: naming file and key.
    """
    content: dict[str, Any] = {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text("utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"recipe {path}: {error}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"recipe {path}: expected `key: value` lines, found {type(content).__name__}")
    content = {**content, **(changes or {})}
    known = set(Recipe.model_fields)
    for key in content:
        if key not in known and key not in WITHOUT_EFFECT:
            near = difflib.get_close_matches(str(key), [*known, *WITHOUT_EFFECT], n=1, cutoff=0.5)
            raise ConfigError(f"recipe {path or 'settings'}: unknown key {key}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        made = Recipe.model_validate({key: _number(value) for key, value in content.items() if key in known})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"recipe {path or 'settings'}: {first['loc'][0]}: {first['msg']} (got {first['input']!r})") from None
    return made, sorted(key for key in content if key in WITHOUT_EFFECT)


def _number(value: Any) -> Any:
    """YAML 1.1 reads `5e-6` as text; what looks like a number is one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
