"""Pages of a document put together as the official `restructure_pages` does it.

Invariant: pages that come in are not changed; blocks are numbered through the document; nothing raises for content.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pipelines.assemble.official.page import OfficialBlock, OfficialPage, pruned_result
from pipelines.assemble.official.tables import merge_tables
from pipelines.assemble.official.titles import Title, title_levels
from pipelines.config import PaddleOcrVlConfig


def restructured(pages: Sequence[OfficialPage], options: PaddleOcrVlConfig) -> list[OfficialPage]:
    """Pages with tables merged across them and titles levelled over the document, as the options say."""
    out = [copy.copy(page) for page in pages]
    number = 0
    for page in out:
        page.blocks = [copy.copy(block) for block in page.blocks]
        for block in page.blocks:
            block.global_block = block.global_group = number
            number += 1
    if options.merge_tables:
        merge_tables([page.blocks for page in out], options.strict_parity)
    if options.relevel_titles:
        titles = [block for page in out for block in page.blocks if block.label == "paragraph_title"]
        for block, level in zip(titles, title_levels([Title(t.content, t.box) for t in titles]), strict=True):
            block.title_level = level
    return out


def one_page(pages: Sequence[OfficialPage], options: PaddleOcrVlConfig) -> OfficialPage:
    """All pages as one, of the size of the first. With `strict_parity` two pictures of one label and place on different pages
    share a path, as they do officially; else each path names its page."""
    if not options.strict_parity:
        pages = [with_page_in_paths(page, number) for number, page in enumerate(pages)]
    first = pages[0]
    blocks = [block for page in pages for block in page.blocks]
    whole = OfficialPage(first.width, first.height, blocks, layout=first.layout, spotted=first.spotted, angle=first.angle)
    for page in pages:
        whole.figures |= page.figures
        whole.unwarped |= page.unwarped
    return whole


def one_result(pages: Sequence[OfficialPage], options: PaddleOcrVlConfig) -> dict[str, Any]:
    """`prunedResult` of a concatenated document."""
    result = pruned_result(one_page(pages, options), options)
    result["page_count"] = len(pages)
    if any(page.prepared for page in pages):
        result["doc_preprocessor_res"] = [pruned_result(page, options).get("doc_preprocessor_res") for page in pages]
    if pages[0].layout:
        result["layout_det_res"] = [pruned_result(page, options)["layout_det_res"] for page in pages]
    return result


def with_page_in_paths(page: OfficialPage, number: int) -> OfficialPage:
    """A page whose pictures' paths name it, also where its blocks mention them."""
    new = {path: path.replace("imgs/", f"imgs/page_{number}_", 1) for path in page.figures}
    out = copy.copy(page)
    out.figures = {new[path]: box for path, box in page.figures.items()}
    out.blocks = [_renamed(block, new) for block in page.blocks]
    return out


def _renamed(block: OfficialBlock, new: dict[str, str]) -> OfficialBlock:
    block = copy.copy(block)
    if block.image is not None:
        block.image = new.get(block.image, block.image)
    if block.label == "table" and "<img " in block.content:
        for old, path in new.items():
            block.content = block.content.replace(f'src="{old}"', f'src="{path}"')
    return block
