"""A PaddleOCR-VL's shape of a few thousand weights, for `jobs.benches.tower.build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_model(folder: Path, *, heads: int = 2, hidden: int = 144, act: str = "gelu_pytorch_tanh", **processor: Any) -> Path:
    """config.json and preprocessor_config.json; no weights, no tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    vision = {
        "model_type": "paddleocr_vl", "hidden_size": hidden, "intermediate_size": 200, "num_hidden_layers": 3,
        "num_attention_heads": heads, "num_channels": 3, "image_size": 384, "patch_size": 14, "hidden_act": act,
        "layer_norm_eps": 1e-6, "attention_dropout": 0.0, "spatial_merge_size": 2,
    }  # fmt: skip
    text = {
        "architectures": ["PaddleOCRVLForConditionalGeneration"], "model_type": "paddleocr_vl", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000,
        "rope_scaling": {"mrope_section": [4, 6, 6], "rope_type": "default", "type": "default"}, "use_bias": False,
        "tie_word_embeddings": False, "use_cache": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "vocab_size": 512, "image_token_id": 300, "video_token_id": 301, "vision_start_token_id": 302,
        "vision_end_token_id": 303, "torch_dtype": "float32",
    }  # fmt: skip
    pictures = {
        "image_processor_type": "PaddleOCRVLImageProcessor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "merge_size": 2, "patch_size": 14, "temporal_patch_size": 1,
        "resample": 3, "rescale_factor": 1 / 255, "min_pixels": 784, "max_pixels": 200704, "do_rescale": True,
        "do_normalize": True, "do_resize": True, "do_convert_rgb": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(text | {"vision_config": vision}))
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures | processor))
    return folder
