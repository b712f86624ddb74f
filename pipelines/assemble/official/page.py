"""A page as the official pipeline has it after reading: blocks, figures, places of spotted text.

Invariant: a pure function of the page's regions, the model's answers and the options; no pixels are needed, so that a page
can be had again from what was stored of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.config import PaddleOcrVlConfig
from pipelines.layout.labels import UNORDERED
from pipelines.layout.postprocess import detection_record
from pipelines.recognize import figures
from pipelines.recognize.merging import IntBox
from pipelines.recognize.plan import Plan, make_plan, pictured
from pipelines.recognize.repair import repaired
from pipelines.recognize.spotting import Spotted
from pipelines.schema import Region


@dataclass(slots=True)
class OfficialBlock:
    label: str
    box: IntBox
    content: str = ""
    group: int | None = None
    polygon: tuple[tuple[float, float], ...] = ()
    image: str | None = None  # path of its picture below the Markdown file
    global_block: int | None = None  # in the whole document, once pages were restructured
    global_group: int | None = None
    title_level: int | None = None


@dataclass(slots=True)
class OfficialPage:
    width: int
    height: int
    blocks: list[OfficialBlock]
    regions: Sequence[Region] = ()  # as layout found them, before any was filtered
    figures: dict[str, IntBox] = field(default_factory=dict)  # path of each picture, and where it is cut from
    spotted: Spotted | None = None
    layout: bool = True  # False: the whole page was one question
    angle: int | None = None  # by which the page was set upright; None: nobody looked
    unwarped: bool = False
    scored: bool = True  # False: the scores of the regions are not known

    @property
    def prepared(self) -> bool:
        """Whether anything looked at how the page lies, or flattened it."""
        return self.angle is not None or self.unwarped


def official_page(
    regions: Sequence[Region],
    answers: Mapping[int, str],
    width: int,
    height: int,
    options: PaddleOcrVlConfig,
    layout: bool = True,
) -> OfficialPage:
    """
    Args:
        regions: as the layout engine gave them.
        answers: what the model said, by the first region of each question.
        width, height: of the page in pixels.
        layout: whether layout detection found the regions.
    """
    plan = make_plan(regions, width, height, options)
    page = OfficialPage(width, height, [], regions, layout=layout)
    contents: dict[int, str] = {}
    for planned in plan.blocks:
        box = planned.box
        mended = repaired(
            answers.get(planned.region) if planned.ask is not None else None,
            planned.label,
            box[2] - box[0],
            box[3] - box[1],
            options.strict_parity,
        )
        contents[planned.region] = mended.content
        page.spotted = mended.spotted or page.spotted
    shown = _with_figures(plan, contents, options)
    for planned in plan.blocks:
        path = figures.image_path(planned.label, planned.box)
        picture = planned.label in pictured(options)
        if picture and planned.in_table and (options.strict_parity or path in shown):
            continue
        outlined = options.layout_shape_mode != "rect"
        block = OfficialBlock(planned.label, planned.box, contents[planned.region], planned.group)
        block.polygon = regions[planned.region].polygon if outlined else ()
        if picture:
            block.image = path
            page.figures[path] = planned.box
        page.blocks.append(block)
    if layout:
        page.figures |= {figure.path: figure.box for figure in plan.figures}
    return page


def _with_figures(plan: Plan, contents: dict[int, str], options: PaddleOcrVlConfig) -> set[str]:
    """Puts images instead of tokens into the tables of `contents`; the paths that are shown so."""
    known = {figures.image_path(b.label, b.box): b.region for b in plan.blocks if b.label in pictured(options)}
    shown: set[str] = set()
    read = dict(contents)
    for planned in plan.blocks:
        if planned.label != "table" or planned.ask is None:
            continue
        painted = plan.asks[planned.ask].tokens
        if options.strict_parity:  # a figure that became no block leaves its token in the table
            painted = tuple(token for token in painted if token.figure.path in known)
        named = figures.named(contents[planned.region])
        shown |= {token.figure.path for token in painted if token.text in named}
        inside = {token.figure.region: read.get(known.get(token.figure.path, -1), "") for token in painted}
        contents[planned.region] = figures.resolve(
            contents[planned.region], painted, lambda figure: figure.path, inside, options.strict_parity
        )
    return shown


def model_settings(options: PaddleOcrVlConfig, layout: bool = True) -> dict[str, Any]:
    return {
        "use_doc_preprocessor": False,
        "use_layout_detection": layout,
        "use_chart_recognition": options.use_chart_recognition or (not layout and options.prompt_label == "chart"),
        "use_seal_recognition": options.use_seal_recognition or (not layout and options.prompt_label == "seal"),
        "use_ocr_for_image_block": options.use_ocr_for_image_block,
        "format_block_content": options.format_block_content,
        "merge_layout_blocks": options.merge_layout_blocks,
        "markdown_ignore_labels": list(options.markdown_ignore_labels),
        "return_layout_polygon_points": options.layout_shape_mode != "rect",
    }


def pruned_result(page: OfficialPage, options: PaddleOcrVlConfig) -> dict[str, Any]:
    """`prunedResult` of the official API: the saved JSON without `input_path` and `page_index`."""
    result: dict[str, Any] = {
        "page_count": None,
        "width": page.width,
        "height": page.height,
        "model_settings": model_settings(options, page.layout) | {"use_doc_preprocessor": page.prepared},
        "parsing_res_list": block_records(page, options),
    }
    if page.spotted is not None:
        polys = [[list(point) for point in quad] for quad in page.spotted.polys]
        result["spotting_res"] = {"rec_polys": polys, "rec_texts": list(page.spotted.texts)}
    if page.prepared:
        used = {"use_doc_orientation_classify": page.angle is not None, "use_doc_unwarping": page.unwarped}
        result["doc_preprocessor_res"] = {"model_settings": used, "angle": -1 if page.angle is None else page.angle}
    if page.layout:
        boxes = detection_record(page.regions)
        for box in [] if page.scored else boxes:
            box.pop("score")
        result["layout_det_res"] = {"boxes": boxes}
    return result


def block_records(page: OfficialPage, options: PaddleOcrVlConfig) -> list[dict[str, Any]]:
    """`parsing_res_list`."""
    from pipelines.assemble.official.markdown import handler

    leaders: dict[int, int] = {}  # a figure that was dropped before shifts positions, not the official groups
    for index, block in enumerate(page.blocks):
        if block.group is not None:
            leaders.setdefault(block.group, block.group if options.strict_parity else index)
    skipped = UNORDERED | set(options.markdown_ignore_labels)
    records: list[dict[str, Any]] = []
    counted = 0
    for index, block in enumerate(page.blocks):
        ordered = block.label not in skipped
        counted += ordered
        record: dict[str, Any] = {
            "block_label": block.label,
            "block_content": block.content,
            "block_bbox": list(block.box),
            "block_id": index,
            "block_order": counted if ordered else None,
            "group_id": leaders[block.group] if block.group is not None else index,
        }
        if block.global_block is not None:
            record["global_block_id"] = block.global_block
            record["global_group_id"] = block.global_group
        if block.polygon:
            record["block_polygon_points"] = [list(point) for point in block.polygon]
        if options.format_block_content:
            write = handler(block.label, page, options, pretty=True)
            record["block_content"] = write(block) if write is not None else block.content
        records.append(record)
    return records
