"""Pages of an output as the official pipeline has them, from what was stored of each.

Invariant: pure. What is not stored is left out rather than made up: scores and outlines of regions, and the regions that
became no block (docs/parity.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.assemble.official.page import OfficialBlock, OfficialPage, pruned_result
from pipelines.config import PaddleOcrVlConfig
from pipelines.layout.labels import UNORDERED, official_label
from pipelines.recognize.figures import image_path
from pipelines.recognize.merging import IntBox
from pipelines.schema import Box, Region


def stored_page(row: Mapping[str, Any]) -> tuple[OfficialPage, dict[str, str]]:
    """A page, and for each picture's official path the name under which it is stored.

    Args:
        row: of `PAGES`.
    """
    width, height = int(row["width_px"] or 0), int(row["height_px"] or 0)
    page = OfficialPage(width, height, [])
    regions: list[Region] = []
    images: dict[str, str] = {}
    counted = 0
    for stored in row["blocks"] or []:
        label = official_label(stored["native_label"] or "", stored["label"])
        box = _ints(stored["bbox_px"])
        block = OfficialBlock(label, box, stored["html"] or stored["content"] or "")
        if stored["image"]:
            block.image = image_path(label, box)
            page.figures[block.image], images[block.image] = box, stored["image"]
        page.blocks.append(block)
        ordered = label not in UNORDERED
        counted += ordered
        regions.append(Region(stored["label"], Box(*stored["bbox_px"]), 0.0, label, order=counted if ordered else None))
    page.regions = regions
    return page, images


def stored_result(page: OfficialPage, options: PaddleOcrVlConfig, page_count: int | None) -> dict[str, Any]:
    """`prunedResult` of a page that `stored_page` made."""
    result = pruned_result(page, options)
    result["page_count"] = page_count
    for box in result.get("layout_det_res", {}).get("boxes", []):
        box.pop("score", None)  # not stored
    return result


def _ints(box: Any) -> IntBox:
    x0, y0, x1, y1 = (int(side) for side in box)
    return x0, y0, x1, y1
