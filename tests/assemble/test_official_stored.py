"""The official form again from what is stored of a page."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.assemble.official.page import official_page, pruned_result
from pipelines.assemble.official.stored import stored_page
from pipelines.assemble.page import Assemble
from pipelines.config import PaddleOcrVlConfig, load
from pipelines.layout.labels import own_label
from pipelines.layout.postprocess import PostOptions, postprocess
from pipelines.recognize.base import Answer
from pipelines.recognize.crops import plan_crops
from pipelines.recognize.repair import finish
from pipelines.schema import Box, PageWork, RasterPage, Region, Span, SpanWork
from pipelines.store.parts import page_row, part_bytes
from tests.parity import cases, drawing


def stored_and_direct(case: dict, options: PaddleOcrVlConfig) -> tuple[dict, dict]:
    """A generated page through crops, answers, blocks and Parquet; and its official form straight from the answers."""
    width, height = case["wh"]
    pixels = drawing.page(case["seed"], width, height)
    regions = postprocess(case["rows"], width, height, PostOptions.of(options))
    raster = RasterPage(np.ascontiguousarray(pixels), 144.0, width / 2, height / 2)
    crops = plan_crops(raster, regions, options)
    said = [case["answers"][crop.prompt][n % len(case["answers"][crop.prompt])] for n, crop in enumerate(crops)]
    reading = finish(raster, regions, crops, [Answer(text) for text in said], options, "model", "w")
    page = PageWork("d", 3, raster=raster, regions=regions, blocks=reading.blocks, figures=reading.figures)
    page.width_px, page.height_px = width, height
    span = Span("d", 1, (3,), "u", 9, "pdf")
    Assemble(load().assemble).assemble(SpanWork(span, "a", [page]))
    (row,) = pq.read_table(io.BytesIO(part_bytes([page_row(page)]))).to_pylist()
    answers = {crop.regions[0]: text for crop, text in zip(crops, said, strict=True)}
    direct = official_page(regions, answers, width, height, options)
    stored, images = stored_page(row, options)
    assert set(images.values()) <= {figure.name for figure in page.figures}
    assert {block.image for block in direct.blocks if block.image} <= set(images)
    return pruned_result(stored, options), pruned_result(direct, options)


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_stored_gives_the_official_form_again(strict: bool) -> None:
    compared = 0
    for seed in range(24):
        for case in cases.document(seed)["pages"]:
            if not case["layout"]:
                continue
            given = case["opts"] | {"strict_parity": strict, "min_pixels": 112896, "max_pixels": 1003520, "vlm_extra_args": {}}
            base = load().paddleocr_vl
            again, direct = stored_and_direct(case, base.model_validate(base.model_dump() | given))
            assert again == direct, seed
            compared += len(direct["parsing_res_list"])
    assert compared > 50


def test_a_whole_page_without_layout_says_so() -> None:
    options = load(settings=["layout.engine=none"]).paddleocr_vl
    region = Region(own_label("ocr"), Box(0, 0, 300, 200), 1.0, "ocr")
    raster = RasterPage(drawing.page(1, 300, 200), 144.0, 150.0, 100.0)
    crops = plan_crops(raster, [region], options)
    blocks = finish(raster, [region], crops, [Answer("text")], options).blocks
    page = PageWork("d", 0, regions=[region], blocks=blocks, width_px=300, height_px=200)
    (row,) = pq.read_table(io.BytesIO(part_bytes([page_row(page)]))).to_pylist()
    pruned = pruned_result(stored_page(row, options)[0], options)
    assert pruned["model_settings"]["use_layout_detection"] is False
    assert "layout_det_res" not in pruned
    assert [block["block_label"] for block in pruned["parsing_res_list"]] == ["ocr"]
