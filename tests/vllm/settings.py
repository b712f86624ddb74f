"""How tests run vLLM: on the CPU, small, with the tests' model."""

from __future__ import annotations

from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"
SETTINGS: dict[str, object] = {
    "recognize.engine": "vllm", "vllm.model_dir": FIXTURE, "vllm.dtype": "float32", "vllm.max_num_seqs": 16, "vllm.wave": 4,
    "vllm.max_model_len": 2048, "vllm.max_num_batched_tokens": 4096, "vllm.enforce_eager": "true",
    "paddleocr_vl.min_pixels": 784, "paddleocr_vl.max_pixels": 200704, "paddleocr_vl.max_new_tokens": 512,
    "raster.engine": "pypdfium2", "raster.dpi": 144,
    "vllm.verify": "false",  # has tests of its own; it would start two more engines
}  # fmt: skip


def settings(**more: object) -> list[str]:
    """As `load` takes them; `recognize__ladder=[]` sets recognize.ladder."""
    named = {key.replace("__", "."): value for key, value in more.items()}
    return [f"{key}={value}" for key, value in (SETTINGS | named).items()]
