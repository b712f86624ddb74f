"""One layout engine with options of documents, as JSON on the last line; run in the environment that has its library.

`python tests/layout/engine_options.py ENGINE FOLDER`: of each set of options, what an engine that shares its model finds
with them (`varied`), and what one that was made with them finds (`fresh`); of the first engine, what it finds before and after.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.config import load
from pipelines.layout.base import LayoutEngine
from pipelines.layout.detect import load_engine
from pipelines.options import canonical, with_options
from pipelines.schema import RasterPage

SETTINGS = ["layout_threshold=0.1", "layout_shape_mode=rect", "layout_nms=false", "layout_merge_bboxes_mode=union"]
OPTIONS: dict[str, dict[str, Any]] = {
    "threshold": {"layout_threshold": 0.95}, "by class": {"layout_threshold": {"22": 0.99, "2": 0.99}},
    "merged": {"layout_merge_bboxes_mode": "large"}, "nms": {"layout_nms": True}, "wider": {"layout_unclip_ratio": [1.5, 1.2]},
    "outlines": {"layout_shape_mode": "poly"}, "not the layout's": {"temperature": 0.5},
}  # fmt: skip


def main(engine: str, folder: str) -> None:
    pages = []
    for seed, (width, height) in enumerate([(500, 700), (600, 400)]):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        pages.append(RasterPage(pixels, 144, width / 2, height / 2))
    engines = [f"layout.engine={engine}", f"layout.model_dir={folder}", "layout.device=cpu"]
    config = load(settings=engines + [f"paddleocr_vl.{setting}" for setting in SETTINGS])
    first = load_engine(config)
    before = rows(first, pages)
    told: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        own = with_options(config, canonical(config, options))
        told[name] = {"varied": rows(first.with_options(own.paddleocr_vl), pages), "fresh": rows(load_engine(own), pages)}  # type: ignore[attr-defined]
    print("\n" + json.dumps({"before": before, "after": rows(first, pages), "options": told}))


def rows(engine: LayoutEngine, pages: list[RasterPage]) -> list[list[Any]]:
    return [
        [[r.native_label, [*map(float, r.box)], round(r.score, 6), r.order, [*map(list, r.polygon)]] for r in regions]
        for regions in engine.detect(pages)
    ]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
