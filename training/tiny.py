"""A PaddleOCR-VL small enough to commit: the released architecture and file layout, shrunken sizes, no weights yet.

Invariant: what is written here is a checkpoint directory that Hugging Face and vLLM load by the code path of the
released ones; special tokens, prompts and the chat template (1.6's) are theirs, only the vocabulary is short.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.synth.formulas import COMMANDS, GREEK, SIGNS

SPECIAL = ("<|end_of_sentence|>", "<|begin_of_sentence|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_START|>", "<|IMAGE_END|>")
OTSL = ("<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>")  # not special: they survive skip_special_tokens
WORDS = ("User:", "Assistant:", "OCR:", "Table Recognition:", "Formula Recognition:", "Chart Recognition:", "Seal Recognition:")
LATEX = ("\\[", "\\]", *COMMANDS)

TEMPLATE = """\
{%- if not add_generation_prompt is defined -%}{%- set add_generation_prompt = true -%}{%- endif -%}
{%- if not cls_token is defined -%}{%- set cls_token = "<|begin_of_sentence|>" -%}{%- endif -%}
{%- if not eos_token is defined -%}{%- set eos_token = "</s>" -%}{%- endif -%}
{{- cls_token -}}
{%- for message in messages -%}
    {%- if message["role"] == "user" -%}
        {{- "User: " -}}
        {%- for content in message["content"] if content["type"] == "image" -%}
            {{- "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>" -}}
        {%- endfor -%}
        {%- for content in message["content"] if content["type"] == "text" -%}{{- content["text"] -}}{%- endfor -%}
        {{- "\\n" -}}
    {%- elif message["role"] == "assistant" -%}
        {{- "Assistant:\\n" -}}
        {%- for content in message["content"] if content["type"] == "text" -%}{{- content["text"] -}}{%- endfor -%}
        {{- eos_token -}}
    {%- elif message["role"] == "system" -%}
        {%- for content in message["content"] if content["type"] == "text" -%}{{- content["text"] + "\\n" -}}{%- endfor -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "Assistant:\\n" -}}{%- endif -%}
"""

# 2.9 M parameters. rope_theta: M-RoPE gives width the lowest frequencies, and with the released 500,000 the columns of a
# line of text would turn by 0.02 rad all together; 100 makes them tell apart in so few dimensions.
TEXT: dict[str, Any] = {
    "hidden_size": 192, "intermediate_size": 448, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 100, "rope_section": [4, 6, 6],
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 224,
}  # fmt: skip
MIN_PIXELS, MAX_PIXELS = 28 * 28, 28 * 28 * 256  # a line of text is one token high, as it is


def build(folder: Path, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> None:
    """Writes everything but weights: configuration, tokenizer, processor, template."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = _tokenizer(folder)
    for name, content in _files(ids, {**TEXT, **(text or {})}, {**VISION, **(vision or {})}).items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")


def _tokenizer(folder: Path) -> dict[str, int]:
    """tokenizer.json: one token a character, bytes for what is unknown. Returns the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127))]
    pieces += ["▁", "\n", *GREEK.values(), *SIGNS.values(), "√"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>", *SPECIAL)])
    made.add_tokens([AddedToken(t, special=False, normalized=False) for t in (*OTSL, *WORDS, *LATEX)])
    made.save(str(folder / "tokenizer.json"))
    return dict(made.get_vocab())


def _files(ids: dict[str, int], text: dict[str, Any], vision: dict[str, Any]) -> dict[str, dict[str, Any]]:
    size = (len(ids) + 63) // 64 * 64
    text = dict(text)
    section = text.pop("rope_section")
    return {
        "config.json": {  # flat, as on the hub
            "architectures": ["PaddleOCRVLForConditionalGeneration"], "model_type": "paddleocr_vl", **text,
            "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
            "rope_scaling": {"mrope_section": section, "rope_type": "default", "type": "default"},
            "tie_word_embeddings": True, "use_bias": False, "use_cache": True,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": size,
            "image_token_id": ids["<|IMAGE_PLACEHOLDER|>"], "video_token_id": size - 1,
            "vision_start_token_id": ids["<|IMAGE_START|>"], "vision_end_token_id": ids["<|IMAGE_END|>"],
            "torch_dtype": "float16",
            "vision_config": {
                "model_type": "paddleocr_vl", **vision, "num_channels": 3, "patch_size": 14, "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": 1e-06, "attention_dropout": 0.0, "spatial_merge_size": 2,
            },
        },
        "generation_config.json": {"eos_token_id": 2, "pad_token_id": 0, "use_cache": True},
        "preprocessor_config.json": {
            "image_processor_type": "PaddleOCRVLImageProcessor", "processor_class": "PaddleOCRVLProcessor",
            "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS,
            "merge_size": 2, "patch_size": 14, "resample": 3, "rescale_factor": 1 / 255, "temporal_patch_size": 1,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "pad_token": "<unk>", "cls_token": "<|begin_of_sentence|>", "sep_token": "<|end_of_sentence|>",
            "extra_special_tokens": {"image_token": "<|IMAGE_PLACEHOLDER|>"}, "model_max_length": 131072,
            "clean_up_tokenization_spaces": False, "add_bos_token": False, "add_eos_token": False,
        },
    }  # fmt: skip
