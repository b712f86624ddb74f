"""Pages of an output as the official pipeline has them, from what was stored of each.

Invariant: pure. A page that a vision-language model read comes out as the official pipeline would have given it for the same
answers: the form is a function of regions, answers and options. Of other pages, what is not stored is left out rather than
made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.assemble.official.page import OfficialBlock, OfficialPage, official_page, pruned_result
from pipelines.config import PaddleOcrVlConfig
from pipelines.layout.labels import UNORDERED, official_label
from pipelines.recognize.figures import image_path
from pipelines.recognize.merging import IntBox
from pipelines.recognize.plan import make_plan
from pipelines.schema import Box, Region

Row = Mapping[str, Any]
_IMAGE = re.compile(r'<img src="([^"]+)"')


def stored_page(row: Row, options: PaddleOcrVlConfig | None = None) -> tuple[OfficialPage, dict[str, str]]:
    """A page, and for each picture's official path the name under which it is stored.

    Args:
        row: of `PAGES`.
        options: of the run that read it; without them only the stored blocks are put into the official form.
    """
    blocks: Sequence[Row] = row["blocks"] or []
    images = {image_path(_label(block), _ints(block["bbox_px"])): block["image"] for block in blocks if block["image"]}
    page = None
    if options is not None and row.get("regions") is not None:
        page = _as_read(row, blocks, options)
    if page is None:
        page = _from_blocks(row, blocks)
        page.angle, page.unwarped = row.get("turned"), bool(row.get("unwarped"))
        return page, images
    page.angle, page.unwarped = row.get("turned"), bool(row.get("unwarped"))
    shown = dict(_in_tables(page, blocks)) | images
    return page, {path: name for path, name in shown.items() if path in page.figures}


def stored_result(page: OfficialPage, options: PaddleOcrVlConfig, page_count: int | None) -> dict[str, Any]:
    """`prunedResult` of a page that `stored_page` made."""
    return pruned_result(page, options) | {"page_count": page_count}


def _as_read(row: Row, blocks: Sequence[Row], options: PaddleOcrVlConfig) -> OfficialPage | None:
    """The page from its regions and answers; None where no vision-language model read it."""
    width, height = int(row["width_px"] or 0), int(row["height_px"] or 0)
    regions = [_region(region) for region in row["regions"]]
    told = {(tuple(block["bbox_px"]), block["native_label"]): block for block in blocks}
    leaders = [(ask.regions[0], ask.label) for ask in make_plan(regions, width, height, options).asks]
    keys = {first: (tuple(regions[first].box), regions[first].native_label or label) for first, label in leaders}
    asked = {first: told[key] for first, key in keys.items() if key in told}
    if not asked and any(block["content"] or block["html"] for block in blocks):
        return None
    answers = {first: block["content"] if block["raw"] is None else block["raw"] for first, block in asked.items()}
    whole = Box(0, 0, width, height)
    alone = len(regions) == 1 and regions[0].native_label == options.prompt_label and regions[0].box == whole
    return official_page(regions, answers, width, height, options, layout=not alone)


def _from_blocks(row: Row, blocks: Sequence[Row]) -> OfficialPage:
    """The page with its stored blocks under the official words; regions without scores."""
    page = OfficialPage(int(row["width_px"] or 0), int(row["height_px"] or 0), [], scored=False)
    regions: list[Region] = []
    counted = 0
    for stored in blocks:
        label, box = _label(stored), _ints(stored["bbox_px"])
        block = OfficialBlock(label, box, stored["html"] or stored["content"] or "")
        if stored["image"]:
            block.image = image_path(label, box)
            page.figures[block.image] = box
        page.blocks.append(block)
        ordered = label not in UNORDERED
        counted += ordered
        regions.append(Region(stored["label"], Box(*stored["bbox_px"]), 0.0, label, order=counted if ordered else None))
    page.regions = regions
    return page


def _in_tables(page: OfficialPage, blocks: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Paths of the figures that tables show, with the files that the stored tables show in their places."""
    stored = {_ints(block["bbox_px"]): block["html"] for block in blocks if block["html"]}
    for block in page.blocks:
        if block.label == "table" and block.box in stored:
            yield from zip(_IMAGE.findall(block.content), _IMAGE.findall(stored[block.box]), strict=False)


def _label(block: Row) -> str:
    return official_label(block["native_label"] or "", block["label"])


def _region(row: Row) -> Region:
    polygon = tuple((float(x), float(y)) for x, y in row["polygon_px"] or ())
    return Region(row["label"], Box(*row["bbox_px"]), row["score"], row["native_label"] or "", polygon, row["order"])


def _ints(box: Any) -> IntBox:
    x0, y0, x1, y1 = (int(side) for side in box)
    return x0, y0, x1, y1
