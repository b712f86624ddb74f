"""What of a page is asked of a vision-language model, and how its blocks follow each other: geometry alone, no pixels.

Invariant: pure; the same regions and options give the same plan, so that crops can be cut on one machine, answers put into
blocks on another, and both again from a stored page. Regions outside the page or too thin to read become no question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.config import PaddleOcrVlConfig
from pipelines.layout import overlap
from pipelines.layout.labels import FIGURES, PICTURES, official_label
from pipelines.recognize import figures, merging
from pipelines.recognize.base import Task
from pipelines.recognize.merging import IntBox
from pipelines.schema import Region

PROMPTS: dict[Task, str] = {
    "ocr": "OCR:",
    "table": "Table Recognition:",
    "chart": "Chart Recognition:",
    "formula": "Formula Recognition:",
    "seal": "Seal Recognition:",
    "spotting": "Spotting:",
}
_SPOTTING_PIXELS = 112_896, 1_605_632  # the official pipeline lets nobody change these


@dataclass(slots=True, frozen=True)
class Ask:
    """One question: a region, or several stacked under each other."""

    regions: tuple[int, ...]
    boxes: tuple[IntBox, ...]
    aligns: tuple[str, ...]  # how each region after the first joins those above it: left, right, center
    label: str  # official, of the first region
    task: Task
    min_pixels: int
    max_pixels: int
    tokens: tuple[figures.Token, ...] = ()  # figures inside a table, painted over


@dataclass(slots=True, frozen=True)
class Planned:
    """One block to be."""

    region: int
    label: str  # official
    box: IntBox
    group: int | None = None  # the official group_id; None: merging was off, not tried or given up
    ask: int | None = None  # index of the question whose answer it carries
    in_table: bool = False  # a figure that a table holds


@dataclass(slots=True, frozen=True)
class Plan:
    blocks: tuple[Planned, ...]
    asks: tuple[Ask, ...]
    figures: tuple[figures.Figure, ...]  # of the whole page, whether or not they became blocks
    unread: tuple[int, ...] = ()  # regions outside the page or too thin, which became no block


def make_plan(regions: Sequence[Region], width: int, height: int, options: PaddleOcrVlConfig) -> Plan:
    """
    Args:
        regions: as the layout engine gave them, in reading order.
        width, height: of the page in pixels.
    """
    labels = [official_label(region.native_label, region.label) for region in regions]
    boxes = [clamped(region, width, height) for region in regions]
    inside = [i for i, box in enumerate(boxes) if box[2] > box[0] and box[3] > box[1]]
    outlines = options.layout_shape_mode != "rect"
    kept = overlap.keep([regions[i] for i in inside], [labels[i] for i in inside], outlines, options.strict_parity)
    shown = [inside[k] for k in kept]
    found = [figures.Figure(i, labels[i], boxes[i]) for i in inside if labels[i] in FIGURES]
    blocks, asks = _asked([Planned(i, labels[i], boxes[i]) for i in shown], found, options)
    tables = [ask.boxes[0] for ask in asks if ask.label == "table"]
    in_table = {figure.path for table in tables for figure in figures.held(table, found)}
    blocks = [replace(b, in_table=True) if figures.image_path(b.label, b.box) in in_table else b for b in blocks]
    unread = [i for i, region in enumerate(regions) if i not in inside or (i not in shown and overlap.thin(region.box))]
    return Plan(tuple(blocks), tuple(asks), tuple(found), tuple(unread))


def not_read(options: PaddleOcrVlConfig) -> set[str]:
    """Labels of which nothing is asked."""
    labels = set() if options.use_ocr_for_image_block else set(PICTURES)
    labels |= set() if options.use_chart_recognition else {"chart"}
    return labels | (set() if options.use_seal_recognition else {"seal"})


def pictured(options: PaddleOcrVlConfig) -> set[str]:
    """Labels whose blocks are shown as images."""
    return {*PICTURES, "seal"} | (set() if options.use_chart_recognition else {"chart"})


def clamped(region: Region, width: int, height: int) -> IntBox:
    """A region's box in whole pixels within the page; empty where it lies outside."""
    if not all(math.isfinite(edge) for edge in region.box):
        return 0, 0, 0, 0
    x0, y0, x1, y1 = map(int, region.box)
    x0, x1 = max(0, min(x0, width)), max(0, min(x1, width))
    y0, y1 = max(0, min(y0, height)), max(0, min(y1, height))
    return x0, y0, x1, y1


def task_of(label: str, options: PaddleOcrVlConfig) -> Task:
    if label == "table":
        return "table"
    if label == "chart" and options.use_chart_recognition:
        return "chart"
    if label == "seal" and options.use_seal_recognition:
        return "seal"
    if "formula" in label and label != "formula_number":
        return "formula"
    return "spotting" if label == "spotting" else "ocr"


def budget(task: Task, options: PaddleOcrVlConfig) -> tuple[int, int]:
    """Least and most pixels of one request, `least <= most`."""
    if task == "spotting":
        return _SPOTTING_PIXELS
    extra = {str(key): value for key, value in options.vlm_extra_args.items()}
    least = extra.get(f"{task}_min_pixels", options.min_pixels)
    return least, extra.get(f"{task}_max_pixels", options.max_pixels)


def _asked(blocks: list[Planned], found: Sequence[figures.Figure], options: PaddleOcrVlConfig) -> tuple[list[Planned], list[Ask]]:
    """Blocks in their final order with their questions."""
    unasked = not_read(options)
    places = [merging.Place(i) for i in range(len(blocks))]
    if options.merge_layout_blocks:
        places = merging.merge([(block.label, block.box) for block in blocks], unasked | {"table"})
    placed: list[Planned] = []
    asks: list[Ask] = []
    for place in places:
        block = replace(blocks[place.index], group=place.group)
        if place.leads and block.label not in unasked:
            stack = place.stack or merging.Stack((place.index,), ())
            members = [blocks[i] for i in stack.members]
            task = task_of(block.label, options)
            painted = figures.tokens(block.box, found) if task == "table" else ()
            regions, boxes = tuple(m.region for m in members), tuple(m.box for m in members)
            asks.append(Ask(regions, boxes, stack.aligns, block.label, task, *budget(task, options), painted))
            block = replace(block, ask=len(asks) - 1)
        placed.append(block)
    return placed, asks
