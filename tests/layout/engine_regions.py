"""Regions of generated pages by one layout engine, as JSON on the last line; run in the environment that has its library.

`python tests/layout/engine_regions.py ENGINE FOLDER WIDTHxHEIGHT...`: page i is noise of seed i.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.config import load
from pipelines.layout.detect import load_engine
from pipelines.schema import RasterPage


def main(engine: str, folder: str, sizes: list[str]) -> None:
    pages = []
    for seed, size in enumerate(sizes):
        width, height = map(int, size.split("x"))
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        pages.append(RasterPage(pixels, 144, width / 2, height / 2))
    config = load(
        settings=[
            f"layout.engine={engine}", f"layout.model_dir={folder}", "layout.device=cpu",
            "paddleocr_vl.layout_threshold=0.1", "paddleocr_vl.layout_shape_mode=rect", "paddleocr_vl.layout_nms=false",
            "paddleocr_vl.layout_merge_bboxes_mode=union",
        ]
    )  # fmt: skip
    found = load_engine(config).detect(pages)
    rows = [[[r.native_label, [*map(int, r.box)], round(r.score, 4), r.order] for r in regions] for regions in found]
    print("\n" + json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
