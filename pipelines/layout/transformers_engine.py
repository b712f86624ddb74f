"""Layout engine `transformers`: PP-DocLayoutV2/V3 (and UVDoc) in PyTorch, on a CPU or beside the reader on its GPU.

Invariant: what the model says goes through `postprocess` and nothing else; pixels are resized on this machine's CPU as
the official pipeline resizes them, normalised where the model runs. One copy to the GPU and two back a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config import LayoutConfig, PaddleOcrVlConfig
from pipelines.errors import ConfigError
from pipelines.layout.checkpoint import LayoutCheckpoint, read_checkpoint, unwarper_size, weights_hash
from pipelines.layout.postprocess import PostOptions, postprocess
from pipelines.schema import Pixels, RasterPage, Region

_MASK_CUT = 0.5  # of a mask's probability, where thresholds are by class; else the one threshold, as the official engine has it


class TransformersLayout:
    """See `layout/base.py`. The model loads with the first page."""

    def __init__(self, config: LayoutConfig, options: PaddleOcrVlConfig) -> None:
        if config.model_dir is None:
            raise ConfigError("layout.engine=transformers needs the model. Try: --set layout.model_dir=DIR")
        self._config = config
        self._folder = Path(config.model_dir)
        self._post = PostOptions.of(options)
        self.batch_pages = config.batch_pages

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
    def _model(self) -> _Model:
        return _Model(self._checkpoint, self._config)

    def with_options(self, options: PaddleOcrVlConfig) -> TransformersLayout:
        """The same model for documents with other options."""
        self._model  # noqa: B018  # loads it, so that both have the one
        other = copy(self)
        other._post = PostOptions.of(options)
        return other

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        sizes = [(page.pixels.shape[1], page.pixels.shape[0]) for page in pages]
        batch = np.stack([resized(page.pixels, self._checkpoint) for page in pages])
        cut = self._post.threshold if isinstance(self._post.threshold, float) else _MASK_CUT
        rows, masks = self._model.run(batch, sizes, cut, outlines=self._post.shape != "rect")
        labels = self._checkpoint.labels
        return [
            postprocess(rows[i], *sizes[i], self._post, masks=list(masks[i]) if masks is not None else None, labels=labels)
            for i in range(len(pages))
        ]


def resized(pixels: Pixels, checkpoint: LayoutCheckpoint) -> Pixels:
    """(height, width, 3) uint8 RGB of the model's size, stretched by cubic interpolation as OpenCV does it."""
    import cv2

    shape = (checkpoint.width, checkpoint.height)
    return np.asarray(cv2.resize(pixels, shape, interpolation=cv2.INTER_CUBIC), np.uint8)


class _Model:
    """The network on its device."""

    def __init__(self, checkpoint: LayoutCheckpoint, config: LayoutConfig) -> None:
        torch, transformers = _libraries()
        self._torch = torch
        self.device = _device(config)
        self._dtype = getattr(torch, config.dtype)
        network = transformers.AutoModelForObjectDetection.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            trust_remote_code=False,
        )
        self._network = network.to(self.device, self._dtype).eval()
        self._mean = torch.tensor(checkpoint.mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(checkpoint.std, device=self.device).view(1, 3, 1, 1) * 255

    def run(
        self, batch: npt.NDArray[np.uint8], sizes: Sequence[tuple[int, int]], cut: float, outlines: bool
    ) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.uint8]] | None]:
        """
        Args:
            batch: (pages, height, width, 3) uint8 RGB.
            sizes: width and height of each page in pixels.
            cut: probability above which a point belongs to a region's mask.

        Returns:
            Rows for `postprocess` per page, and per page a mask (rows, height / 4, width / 4) of 0 and 1, where the model
            has masks and `outlines` asks for them.
        """
        torch = self._torch
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).float()
            found = self._network(pixel_values=((pixels - self._mean) / self._std).to(self._dtype))
            rows, queries = self._rows(found, sizes)
            host = rows.cpu().numpy()
            masks = getattr(found, "out_masks", None)
            if masks is None or not outlines:
                return list(host), None
            likely = [np.flatnonzero(page[:, 1] > min(cut, _MASK_CUT)) for page in host]
            return list(host), [self._masks(masks[i], queries[i], likely[i], cut, len(host[i])) for i in range(len(host))]

    def _rows(self, found: Any, sizes: Sequence[tuple[int, int]]) -> tuple[Any, Any]:
        """(pages, queries, 8) float: the best (query, class) pairs with boxes in pixels, rank and votes; and their queries."""
        torch = self._torch
        scores = found.logits.float().sigmoid()
        count, classes = scores.shape[1], scores.shape[2]
        best, flat = scores.flatten(1).topk(count, dim=-1)
        queries, labels = flat // classes, flat % classes
        center, extent = found.pred_boxes.float().split(2, dim=-1)
        scale = torch.tensor([[w, h, w, h] for w, h in sizes], dtype=torch.float32, device=scores.device)
        boxes = torch.cat([center - extent / 2, center + extent / 2], -1) * scale[:, None]
        before = found.order_logits.float().sigmoid()
        votes = before.triu(1).sum(1) + (1 - before.transpose(1, 2)).tril(-1).sum(1)
        ranks = votes.argsort(1).argsort(1).float()
        picked = torch.cat([boxes, ranks[..., None], votes[..., None]], -1).gather(1, queries[..., None].expand(-1, -1, 6))
        return torch.cat([labels[..., None].float(), best[..., None], picked], -1), queries

    def _masks(self, masks: Any, queries: Any, likely: npt.NDArray[np.intp], cut: float, rows: int) -> npt.NDArray[np.uint8]:
        """Of one page; rows that no threshold will pass stay empty, so that few bytes leave the GPU."""
        shape = tuple(masks.shape[-2:])
        found = np.zeros((rows, *shape), np.uint8)
        if len(likely):
            chosen = queries[self._torch.from_numpy(likely).to(masks.device)]
            found[likely] = (masks[chosen].float().sigmoid() > cut).to(self._torch.uint8).cpu().numpy()
        return found


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
