"""What PaddleOCR-VL's engines need of a card's memory, item by item, before anything starts.

Invariant: pure arithmetic; every figure is a count of bytes from the model's shape and the configuration, but for two that
were measured (`_ENGINE_BESIDE`, `_LAYOUT`), and an estimate calls itself one. `conf/hardware/*.yaml` are held against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config import Config

GIB = 1 << 30
# Seven engines on an H100 held 64.2 GiB, 32 of them KV cache; what the items below do not count of the rest: CUDA context,
# code, workspaces, captured graphs of 44 sizes, what the allocator keeps.
_ENGINE_BESIDE = 1.65 * GIB
_LAYOUT = 1.1 * GIB  # estimate: a context of 0.5, weights in float32, activations of a batch of 4; not measured yet
_ANSWER_TOKENS = 400  # of KV cache, on average while it lasts: 250 of picture and prompt, half of 300 said


@dataclass(slots=True, frozen=True)
class Shape:
    """Sizes that memory depends on; the defaults are PaddleOCR-VL-0.9B's, of all its versions."""

    hidden: int = 1024
    layers: int = 18
    heads: int = 16
    kv_heads: int = 2
    head: int = 128
    inner: int = 3072
    vocabulary: int = 103_424
    vision_hidden: int = 1152
    vision_layers: int = 27
    vision_inner: int = 4304
    patch_values: int = 588
    positions: int = 729
    merge: int = 4  # patches to a token

    @property
    def parameters(self) -> int:
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        text = self.layers * (attention + 3 * self.hidden * self.inner) + 2 * self.vocabulary * self.hidden
        vision_layer = 4 * self.vision_hidden**2 + 2 * self.vision_hidden * self.vision_inner
        vision = self.vision_layers * vision_layer + self.vision_hidden * (self.patch_values + self.positions)
        merged = self.vision_hidden * self.merge
        return text + vision + merged * (merged + self.hidden)

    @property
    def kv_bytes(self) -> int:
        """Of one token, in two-byte floats."""
        return 2 * self.layers * self.kv_heads * self.head * 2


@dataclass(slots=True, frozen=True)
class Item:
    name: str
    bytes: int


@dataclass(slots=True, frozen=True)
class Budget:
    """Of one card."""

    items: tuple[Item, ...]  # what is needed, KV cache aside
    total: int  # bytes of the card
    kv: int  # bytes that are left for the KV caches of all engines; may be negative
    engines: int
    tokens: int  # that the KV cache of one engine holds
    answers: int  # that an engine can have under way: its places, or fewer where its KV cache is small

    def lines(self) -> list[str]:
        found = [f"{item.name}: {item.bytes / GIB:.2f} GiB" for item in self.items]
        return [
            *found,
            f"KV cache: {self.kv / GIB:.2f} of {self.total / GIB:.1f} GiB, {self.tokens:,} tokens an engine, "
            f"about {self.answers} answers under way in each of {self.engines}",
        ]


def budget(config: Config, total: int, desktop: int = 0, shape: Shape | None = None) -> Budget:
    """What a card of `total` bytes has to hold under this configuration.

    Args:
        desktop: bytes that a screen and other programs hold.
    """
    shape, vllm, engines = shape or Shape(), config.vllm, config.vllm.engines_per_gpu
    items = [
        Item("weights", engines * 2 * shape.parameters),
        Item("vision tower, one pass", engines * tower_bytes(shape)),
        Item("text model, one step", engines * step_bytes(shape, vllm.max_num_batched_tokens, vllm.max_num_seqs)),
        Item("contexts, CUDA graphs, workspaces (measured on an H100)", round(engines * _ENGINE_BESIDE)),
        Item("left free (vllm.reserve_gib)", round(vllm.reserve_gib * GIB)),
    ]
    if layout := layout_bytes(config):
        items.append(Item("layout (estimate)", layout))
    if desktop:
        items.append(Item("desktop", desktop))
    share = total if vllm.gpu_memory_utilization == "auto" else round(total * vllm.gpu_memory_utilization)
    ours = sum(item.bytes for item in items if not item.name.startswith(("layout", "desktop", "left free")))
    kv = min(total - sum(item.bytes for item in items), share - ours)
    if vllm.kv_cache_memory_bytes is not None:
        kv = min(kv, engines * vllm.kv_cache_memory_bytes)
    tokens = max(0, kv // engines // shape.kv_bytes)
    return Budget(tuple(items), total, kv, engines, tokens, min(vllm.max_num_seqs, tokens // _ANSWER_TOKENS))


def layout_bytes(config: Config) -> int:
    """What layout takes of the card that it shares with engines; 0: it is not on the card."""
    if config.layout.engine not in ("transformers", "paddle") or config.layout.device == "cpu":
        return 0
    return round((config.layout.memory_gib or 0) * GIB) or round(_LAYOUT)


def tower_bytes(shape: Shape, patches: int = 16_384) -> int:
    """Most that one pass of the packed tower holds: residual, normed, inner and update rows in two bytes, angles in four."""
    rows = 2 * (3 * shape.vision_hidden + shape.vision_inner) + 3 * 4 * 36 + 64
    return patches * rows


def step_bytes(shape: Shape, tokens: int, places: int) -> int:
    """Most that a step of the text model holds: rows of all tokens, logits and their float32 copy of all places."""
    rows = 2 * (4 * shape.hidden + 2 * shape.heads * shape.head + 3 * shape.inner)
    pictures = tokens * (shape.merge * shape.patch_values + 2 * shape.hidden)  # bytes of patches, and their embeddings
    return tokens * rows + pictures + places * shape.vocabulary * (2 + 4 + 4)
