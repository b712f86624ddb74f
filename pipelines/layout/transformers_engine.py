"""Layout engine `transformers`: PP-DocLayoutV2/V3 (and UVDoc) in PyTorch, on a CPU or beside the reader on its GPU.

Invariant: what the model says goes through `postprocess` and nothing else; pixels are resized on this machine's CPU as
the official pipeline resizes them, normalised where the model runs (`network.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config import LayoutConfig, PaddleOcrVlConfig
from pipelines.errors import ConfigError
from pipelines.layout.checkpoint import LayoutCheckpoint, read_checkpoint, unwarper_size, weights_hash
from pipelines.layout.postprocess import PostOptions, postprocess
from pipelines.recognize.gpu_memory import LayoutOnCard, visible_card
from pipelines.schema import Pixels, RasterPage, Region

if TYPE_CHECKING:
    from pipelines.layout.network import Flight, Network

_AHEAD = 8  # micro-batches that are asked for at once, so that the GPU has the next one while the CPU reads the last


class TransformersLayout:
    """See `layout/base.py`. The model loads with the first page."""

    def __init__(self, config: LayoutConfig, options: PaddleOcrVlConfig) -> None:
        if config.model_dir is None:
            raise ConfigError("layout.engine=transformers needs the model. Try: --set layout.model_dir=DIR")
        self._config = config
        self._folder = Path(config.model_dir)
        self._post = PostOptions.of(options)
        self.batch_pages = _AHEAD * config.batch_pages

    @property
    def name(self) -> str:
        return f"{self._checkpoint.architecture} (transformers)"

    @cached_property
    def weights(self) -> str:
        return weights_hash(self._folder)

    @cached_property
    def _checkpoint(self) -> LayoutCheckpoint:
        return read_checkpoint(self._folder)

    @cached_property
    def _model(self) -> Network:
        _, transformers = _libraries()
        from pipelines.layout.network import Network

        device = _device(self._config)
        network = transformers.AutoModelForObjectDetection.from_pretrained(
            self._checkpoint.folder,
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            trust_remote_code=False,
        )
        return Network(network, self._checkpoint, self._config, device)

    def with_options(self, options: PaddleOcrVlConfig) -> TransformersLayout:
        """The same model for documents with other options."""
        self._model  # noqa: B018  # loads it, so that both have the one
        other = copy(self)
        other._post = PostOptions.of(options)
        return other

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        """Two micro-batches are under way at most: on a GPU one is computed while the next is resized and the last one read."""
        network = self._model
        found: list[list[Region]] = []
        ahead: deque[tuple[Sequence[RasterPage], Flight]] = deque()
        for start in range(0, len(pages), network.batch_pages):
            some = pages[start : start + network.batch_pages]
            pixels = [page.pixels for page in some]
            ahead.append((some, network.begin(pixels, self._post.mask_cut, outlines=self._post.shape != "rect")))
            if len(ahead) > 1:
                found += self._read(network, *ahead.popleft())
        for some, flight in ahead:
            found += self._read(network, some, flight)
        self._settled  # noqa: B018  # after pages, whose activations are most of what it holds
        return found

    @cached_property
    def _settled(self) -> None:
        """Engines that start on this card from here on find layout's memory taken."""
        if self._model.device.type == "cuda":
            LayoutOnCard(visible_card()).holds_its_memory()

    def _read(self, network: Network, pages: Sequence[RasterPage], flight: Flight) -> list[list[Region]]:
        return [
            postprocess(
                seen.rows, page.pixels.shape[1], page.pixels.shape[0], self._post, seen.masks, labels=self._checkpoint.labels
            )
            for page, seen in zip(pages, network.end(flight), strict=True)
        ]


class TransformersUnwarper:
    """See `layout/unwarp.py`. The model loads with the first page."""

    def __init__(self, folder: Path, config: LayoutConfig) -> None:
        if not any(folder.glob("*.safetensors")):
            raise ConfigError(
                f"paddleocr_vl.doc_unwarping_model_dir: no *.safetensors in {folder}; the static form of Paddle is read "
                "with --set layout.engine=paddle"
            )
        self._folder, self._config = folder, config

    @cached_property
    def weights(self) -> str:
        return weights_hash(self._folder)

    @cached_property
    def _size(self) -> tuple[int, int]:
        return unwarper_size(self._folder)

    @cached_property
    def _network(self) -> Any:
        _, transformers = _libraries()
        network = transformers.AutoModel.from_pretrained(
            self._folder,
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            trust_remote_code=False,
        )
        return network.to(_device(self._config)).eval()

    def flat(self, pixels: Pixels) -> Pixels:
        """The network says on a small copy where each point of the flat page comes from; it was trained on BGR."""
        torch, _ = _libraries()
        stretched = {"mode": "bilinear", "align_corners": True}
        stretch = torch.nn.functional.interpolate
        with torch.inference_mode():
            page = torch.from_numpy(pixels[:, :, ::-1].copy()).to(self._network.device).permute(2, 0, 1)[None].float() / 255
            mesh = self._network(pixel_values=stretch(page, size=self._size, **stretched)).last_hidden_state
            places = stretch(mesh, size=page.shape[2:], **stretched).permute(0, 2, 3, 1)
            flat = torch.nn.functional.grid_sample(page, places, align_corners=True)
            found = (flat[0].permute(1, 2, 0) * 255).to(torch.uint8).cpu().numpy()
        return np.ascontiguousarray(found[:, :, ::-1])


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"{error}: PP-DocLayout and UVDoc need torch and transformers. Try: pip install torch transformers"
        ) from None
    return torch, transformers


def _device(config: LayoutConfig) -> Any:
    """The configured device, within the configured share of its memory or of the CPU."""
    import torch

    wanted = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device
    device = torch.device("cpu" if wanted == "auto" else wanted)
    if device.type == "cuda" and config.memory_gib is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.memory_gib * (1 << 30) / total), device)
    if device.type == "cpu":
        torch.set_num_threads(config.threads)
    return device
