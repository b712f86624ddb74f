"""A model folder with PaddleOCR-VL-0.9B's true shape and no weights, for engines that load `dummy` ones.

Speed does not depend on weights where the lengths of answers are forced; the text is noise. Sizes, token ids, prompts and
picture settings are the published model's; the tokenizer is synthetic but has its 103,424 entries.
"""

from __future__ import annotations

import json
from itertools import count, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from jobs.benches.workloads import BUDGET, PATCH

VOCABULARY = 103_424
IMAGE = "<|IMAGE_PLACEHOLDER|>"
SPECIAL = {
    "<unk>": 0, "<s>": 1, "</s>": 2, "<|end_of_sentence|>": 100_272, "<|begin_of_sentence|>": 100_273, IMAGE: 100_295,
    "<|IMAGE_START|>": 101_305, "<|IMAGE_END|>": 101_306,
}  # fmt: skip
_TEMPLATE = (
    "<|begin_of_sentence|>{% for m in messages %}User: {% for c in m['content'] if c['type'] == 'image' %}<|IMAGE_START|>"
    + IMAGE
    + "<|IMAGE_END|>{% endfor %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    "{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)


def write_shape(folder: Path, tiny: bool = False) -> Path:
    """Writes it; with `tiny` layers of a few channels in place of the true ones."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "image_processor_type": "PaddleOCRVLImageProcessor", "processor_class": "PaddleOCRVLProcessor", "resample": 3,
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3, "min_pixels": BUDGET[0], "max_pixels": BUDGET[1], "merge_size": 2, "patch_size": PATCH,
        "rescale_factor": 1 / 255, "temporal_patch_size": 1,
    }  # fmt: skip
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<unk>", "cls_token": "<|begin_of_sentence|>", "sep_token": "<|end_of_sentence|>",
        "model_max_length": 131_072, "extra_special_tokens": {"image_token": IMAGE}, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    generation = {"eos_token_id": 2, "pad_token_id": 0, "use_cache": True}
    files = {
        "config.json": _tiny(true_shape()) if tiny else true_shape(), "preprocessor_config.json": pictures,
        "tokenizer_config.json": tokens,
        "generation_config.json": generation,
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    _write_tokenizer(folder / "tokenizer.json")
    return folder


def true_shape() -> dict[str, Any]:
    """config.json of PaddleOCR-VL-0.9B."""
    vision = {
        "model_type": "paddleocr_vl", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "num_channels": 3, "image_size": 384, "patch_size": PATCH, "spatial_merge_size": 2,
        "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_dropout": 0.0,
    }  # fmt: skip
    return {
        "architectures": ["PaddleOCRVLForConditionalGeneration"], "model_type": "paddleocr_vl", "hidden_size": 1024,
        "intermediate_size": 3072, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2,
        "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 500_000,
        "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"}, "use_bias": False,
        "tie_word_embeddings": False, "use_cache": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "vocab_size": VOCABULARY, "image_token_id": SPECIAL[IMAGE], "video_token_id": 101_307,
        "vision_start_token_id": SPECIAL["<|IMAGE_START|>"], "vision_end_token_id": SPECIAL["<|IMAGE_END|>"],
        "torch_dtype": "bfloat16", "vision_config": vision,
    }  # fmt: skip


def _tiny(model: dict[str, Any]) -> dict[str, Any]:
    vision = model["vision_config"] | {
        "hidden_size": 144,
        "intermediate_size": 200,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32}
    rotary = model["rope_scaling"] | {"mrope_section": [4, 6, 6]}
    return model | text | {"vision_config": vision, "rope_scaling": rotary}


def _write_tokenizer(path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    known = [f"<0x{byte:02X}>" for byte in range(256)] + [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    words = ("▁" + "".join(letters) for length in count(2) for letters in product(ascii_lowercase, repeat=length))
    taken = set(SPECIAL.values())
    free = (number for number in range(VOCABULARY) if number not in taken)
    vocabulary = dict(SPECIAL)
    for number in free:
        vocabulary[known.pop(0) if known else next(words)] = number
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(path))
