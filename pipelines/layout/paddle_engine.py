"""Layout engine `paddle`: PP-DocLayoutV2/V3 (and UVDoc) by PaddleX's own predictors, in a Python environment of its own.

Invariant: the predictors do the official post-processing themselves; here boxes only become regions. Paddle's CUDA
libraries must never meet vLLM's in one process: a run sets `layout.python`, and the stage's actors start with that
interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.config import LayoutConfig, PaddleOcrVlConfig
from pipelines.errors import ConfigError
from pipelines.layout.checkpoint import weights_hash
from pipelines.layout.labels import own_label
from pipelines.layout.postprocess import PostOptions
from pipelines.schema import Box, Pixels, RasterPage, Region


class PaddleLayout:
    """See `layout/base.py`. The model loads with the first page."""

    def __init__(self, config: LayoutConfig, options: PaddleOcrVlConfig) -> None:
        if config.model_dir is None:
            raise ConfigError("layout.engine=paddle needs the model. Try: --set layout.model_dir=DIR")
        self._config = config
        self._folder = Path(config.model_dir)
        self._options = PostOptions.of(options)
        self.batch_pages = config.batch_pages

    @property
    def name(self) -> str:
        return f"{self._model_name} (paddle)"

    @cached_property
    def weights(self) -> str:
        return weights_hash(self._folder)

    @cached_property
    def _model_name(self) -> str:
        """As `inference.yml` has it, which every folder of an official model holds."""
        path = self._folder / "inference.yml"
        try:
            told = yaml.safe_load(path.read_text("utf-8"))
            return str(told["Global"]["model_name"])
        except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
            raise ConfigError(f"layout.model_dir: {path}: {type(error).__name__}: {error}") from None

    @cached_property
    def _predictor(self) -> Any:
        return _predictor(self._model_name, self._folder, self._config.device)

    def with_options(self, options: PaddleOcrVlConfig) -> PaddleLayout:
        """The same model for documents with other options."""
        self._predictor  # noqa: B018  # loads it, so that both have the one
        other = copy(self)
        other._options = PostOptions.of(options)
        return other

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        images = [page.pixels[:, :, ::-1].copy() for page in pages]  # BGR, as PaddleX reads images
        options = self._options
        results = self._predictor.predict(
            images,
            batch_size=len(images),
            threshold=options.threshold,
            layout_nms=options.nms,
            layout_unclip_ratio=options.unclip,
            layout_merge_bboxes_mode=options.merge,
            layout_shape_mode=options.shape,
            filter_overlap_boxes=False,  # the pipeline filters later, on a copy (pipelines/layout/overlap.py)
        )
        return [[_region(box) for box in result["boxes"]] for result in results]


class PaddleUnwarper:
    """See `layout/unwarp.py`. The model loads with the first page."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder, self._device = folder, device

    @cached_property
    def weights(self) -> str:
        return weights_hash(self._folder)

    @cached_property
    def _model(self) -> Any:
        return _predictor("UVDoc", self._folder, self._device)

    def flat(self, pixels: Pixels) -> Pixels:
        (result,) = self._model.predict([pixels[:, :, ::-1].copy()])
        return np.ascontiguousarray(result["doctr_img"], np.uint8)  # RGB, whatever it was given


def _predictor(name: str, folder: Path, device: str) -> Any:
    os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")  # else it asks hubs which of them answers (P7)
    try:
        from paddlex import create_model
    except ImportError as error:
        raise ConfigError(f"layout.engine=paddle: {error}. Set layout.python to an environment that has it") from None
    engine = "paddle_dynamic" if any(folder.glob("*.safetensors")) else "paddle_static"
    kind = {"auto": None, "cuda": "gpu"}.get(device, device)
    return create_model(name, model_dir=str(folder), device=kind, engine=engine)


def _region(box: dict[str, Any]) -> Region:
    polygon = tuple((float(x), float(y)) for x, y in box.get("polygon_points") or ())
    x0, y0, x1, y1 = (float(edge) for edge in box["coordinate"])
    label = str(box["label"])
    return Region(own_label(label), Box(x0, y0, x1, y1), float(box["score"]), label, polygon, box.get("order"))
