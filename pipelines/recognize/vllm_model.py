"""vLLM's PaddleOCR-VL with the packed vision tower in it: `EngineArgs(model_class_overrides=OVERRIDES)`.

Invariant: where the packed tower was not verified (another upstream source, tensor parallelism, quantised or LoRA
layers, an attention backend that it does not know), and where it disagrees with upstream on the weights that were
loaded, upstream's own code runs, and one line of the log says why. uint8 patches are understood either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import paddleocr_vl as upstream
from vllm.model_executor.models.siglip import SiglipMLP
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.transformers_utils.processor import cached_image_processor_from_config

from pipelines.observe.log import EventLog
from pipelines.recognize import tower_plain
from pipelines.recognize.orphans import end_with_owner
from pipelines.recognize.pack import PatchFormat, byte_table
from pipelines.recognize.tower import KNOWN_ATTENTION, Grid, PackedTower
from pipelines.recognize.upstream_source import source_digest
from pipelines.recognize.vllm_attention import unsplit

OVERRIDES = {"PaddleOCRVLForConditionalGeneration": "pipelines.recognize.vllm_model:PackedPaddleOCRVL"}

UPSTREAM = "pagemill_upstream"  # key of vLLM's additional_config: why these weights must run on upstream's code

# What the packed tower does again, by the digest of upstream's source. 0.25.1 and 0.32.0 were run; what lies between was
# read: it differs in how lengths and positions are copied to the GPU. Any other source was not compared.
VERIFIED = {
    "8b110b231a37df7e": "0.25.1 to 0.27.1",
    "e6a0672312f3b4ff": "0.28.0 and 0.29.0",
    "12c6ea4df262a88b": "0.30.0 and 0.31.0",
    "54ece0f831d2f523": "0.32.0",
}
MIRRORED = (
    upstream.SiglipVisionEmbeddings, upstream.SiglipAttention, upstream.SigLIPRotaryEmbedding, upstream.SiglipEncoderLayer,
    upstream.SiglipEncoder, upstream.SiglipVisionTransformer, upstream.Projector, SiglipMLP,
    upstream.PaddleOCRVLForConditionalGeneration.encode_image,
    upstream.PaddleOCRVLForConditionalGeneration._process_image_input,
)  # fmt: skip
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}  # of the difference's norm, see `disagreement`

log = EventLog()


@MULTIMODAL_REGISTRY.register_processor(
    upstream.PaddleOCRVLMultiModalProcessor,
    info=upstream.PaddleOCRVLProcessingInfo,
    dummy_inputs=upstream.PaddleOCRVLDummyInputsBuilder,
)
class PackedPaddleOCRVL(upstream.PaddleOCRVLForConditionalGeneration):
    """Upstream's class; `_process_image_input` takes all crops of a step at once."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        end_with_owner()
        unsplit(self, vllm_config)
        processor = cached_image_processor_from_config(vllm_config.model_config)
        self.patch_format = PatchFormat.of(processor.to_dict())
        self.refusal = refusal(self, vllm_config)  # why upstream's tower runs; None: it does not
        self._tower: PackedTower | None = None

    def tower(self) -> PackedTower | None:
        """The packed tower; built and compared with upstream's at the first call, when the weights are loaded."""
        if self._tower is None and self.refusal is None:
            self._tower = self._verified_tower()
        return self._tower

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Upstream's; vLLM's own warm-up comes through here, so that kernels are compiled before a crop waits for them."""
        self.tower()
        return super().forward(*args, **kwargs)

    def _process_image_input(self, image_input: Any) -> Any:
        patches, grids = list(image_input.pixel_values), [tuple(grid) for grid in image_input.image_grid_thw.tolist()]
        tower = self.tower()
        return self.encode_upstream(patches, grids) if tower is None else tower.encode(patches, grids)

    def encode_upstream(self, patches: Sequence[Tensor], grids: Sequence[Grid]) -> Any:
        """Upstream's way, crop by crop."""
        table = torch.from_numpy(byte_table(self.patch_format)).to(self.visual.device)
        floats = [
            tower_plain.floats(p.to(table.device), table, p[0].numel()).view(p.shape) if p.dtype == torch.uint8 else p
            for p in patches
        ]
        inputs = upstream.PaddleOCRImagePixelInputs(type="pixel_values", pixel_values=floats, image_grid_thw=torch.tensor(grids))
        return super()._process_image_input(inputs)

    @torch.inference_mode()
    def _verified_tower(self) -> PackedTower | None:
        tower = PackedTower(self.visual, self.mlp_AR, self.patch_format)
        if tower.device.type == "cuda":
            tower.rehearse()
        difference = disagreement(self, tower)
        if difference <= _TOLERANCE[tower.dtype]:
            return tower
        self.refusal = f"it disagrees with upstream's by {difference:.2g} on these weights"
        _say(self.refusal)
        return None


def refusal(model: PackedPaddleOCRVL, vllm_config: Any) -> str | None:
    """Why this model must not use the packed tower; said once in the log."""
    reason = _refusal(model, vllm_config)
    if reason is not None:
        _say(reason)
    return reason


def _refusal(model: PackedPaddleOCRVL, vllm_config: Any) -> str | None:
    if reason := (vllm_config.additional_config or {}).get(UPSTREAM):
        return str(reason)
    if source_digest(MIRRORED) not in VERIFIED:
        return f"this vLLM's {upstream.__name__} is not one that was compared ({', '.join(VERIFIED.values())})"
    if vllm_config.parallel_config.tensor_parallel_size > 1:
        return "tensor parallelism"
    if vllm_config.lora_config is not None:
        return "LoRA"
    if vllm_config.model_config.dtype not in _TOLERANCE:
        return f"dtype {vllm_config.model_config.dtype}"
    if model.patch_format.merge != 2 or model.patch_format.patch != model.config.vision_config.patch_size:
        return "patch and merge sizes of preprocessor_config.json and config.json differ"
    for layer in model.visual.vision_model.encoder.layers:
        for linear in (layer.self_attn.qkv_proj, layer.self_attn.out_proj, layer.mlp.fc1, layer.mlp.fc2):
            if type(linear.quant_method).__name__ != "UnquantizedLinearMethod":
                return f"quantised layers ({type(linear.quant_method).__name__})"
        if layer.self_attn.attn.fp8_enabled or layer.self_attn.attn.attn_backend.name not in KNOWN_ATTENTION:
            return f"attention backend {layer.self_attn.attn.attn_backend.name}"
    return None


def disagreement(model: PackedPaddleOCRVL, tower: PackedTower) -> float:
    """Norm of the difference between packed and upstream embeddings over upstream's norm, the larger of two small crops'."""
    grids: list[Grid] = [(1, 4, 6), (1, 8, 2)]
    patch = model.patch_format.patch
    generator = torch.Generator().manual_seed(0)
    crops = [
        torch.randint(0, 256, (t * h * w, 3, patch, patch), generator=generator, dtype=torch.uint8).to(tower.device)
        for t, h, w in grids
    ]
    pairs = zip(tower.encode(crops, grids), model.encode_upstream(crops, grids), strict=True)
    return max(float((ours.float() - theirs.float()).norm() / theirs.float().norm()) for ours, theirs in pairs)


def _say(reason: str) -> None:
    log.warning("packed_tower_off", instead="vLLM's own runs, several times slower", reason=reason)
