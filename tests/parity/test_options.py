"""The table of options in docs/parity.md: no official option is missing, and what is named of ours is there."""

from __future__ import annotations

import re

from pipelines.config import load
from tests.conftest import ROOT

# what `paddleocr doc_parser --help` of paddleocr 3.7.0 lists
_LISTED = """
input save_path pipeline_version layout_detection_model_name layout_detection_model_dir layout_threshold layout_nms
layout_unclip_ratio layout_merge_bboxes_mode layout_shape_mode vl_rec_model_name vl_rec_model_dir vl_rec_backend
vl_rec_server_url vl_rec_max_concurrency vl_rec_api_model_name vl_rec_api_key doc_orientation_classify_model_name
doc_orientation_classify_model_dir doc_unwarping_model_name doc_unwarping_model_dir use_doc_orientation_classify
use_doc_unwarping use_layout_detection use_chart_recognition use_seal_recognition use_ocr_for_image_block
format_block_content merge_layout_blocks markdown_ignore_labels use_queues prompt_label repetition_penalty temperature top_p
min_pixels max_pixels max_new_tokens device engine enable_hpi use_tensorrt precision enable_mkldnn mkldnn_cache_capacity
cpu_threads enable_cinn paddlex_config
"""
OFFICIAL = set(_LISTED.split())


def rows() -> list[tuple[str, str]]:
    table = (ROOT / "docs" / "parity.md").read_text("utf-8").split("## Options of `paddleocr doc_parser`")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [(theirs, ours) for theirs, ours in cells if theirs != "theirs"]


def test_no_official_option_is_missing() -> None:
    named = {name for row in rows() for cell in row for name in re.findall(r"--(\w+)", cell)}
    assert OFFICIAL - named == set()


def test_what_is_ours_is_there() -> None:
    config = load().model_dump()
    keys = {f"{section}.{key}" for section in config for key in config[section]}
    for theirs, ours in rows():
        found = re.findall(r"`([a-z_.]+)[`=]", ours)
        if ours.startswith("the same"):
            found += re.findall(r"`--(\w+)", theirs)
        for name in found:
            key = name if "." in name else f"paddleocr_vl.{name}"
            assert key in keys or name in ("vllm", "openai", "paddle"), (theirs, name)
