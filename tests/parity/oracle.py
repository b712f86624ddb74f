"""The official PaddleOCR-VL code with models that answer what they are told, in an environment of its own.

Reads one document (JSON) a line from stdin, writes one result a line to stdout: `make parity` starts it. Needs paddlex and
what `requirements.txt` beside this file lists; nothing of pagemill.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"  # it would look for model hosters
sys.path.insert(0, str(Path(__file__).parent))

import drawing  # beside this file
import numpy as np
from paddlex.inference.common.batch_sampler import ImageBatchSampler
from paddlex.inference.common.reader import ReadImage
from paddlex.inference.models.layout_analysis.processors import LayoutAnalysisProcess
from paddlex.inference.pipelines.components import CropByBoxes
from paddlex.inference.pipelines.paddleocr_vl.pipeline import _PaddleOCRVLPipeline

LABELS = [
    "abstract", "algorithm", "aside_text", "chart", "content", "display_formula", "doc_title", "figure_title", "footer",
    "footer_image", "footnote", "formula_number", "header", "header_image", "image", "inline_formula", "number",
    "paragraph_title", "reference", "reference_content", "seal", "table", "text", "vertical_text", "vision_footnote",
]  # fmt: skip
MODES = {number: "large" if number in (3, 5, 6, 15, 17) else "union" for number in range(25)}
V1 = dict.fromkeys(range(25), 0.5) | dict.fromkeys((5, 6, 15, 17, 22, 23), 0.4) | {20: 0.45}


class Layout:
    """Rows of a page through the official post-processing."""

    def __init__(self) -> None:
        self.case: dict[str, Any] = {}
        self._process = LayoutAnalysisProcess(labels=LABELS, scale_size=[800, 800])

    def __call__(self, images: list[Any], **given: Any) -> list[dict[str, Any]]:
        height, width = images[0].shape[:2]
        case, options = self.case, self.case["opts"]
        rows = np.array(case["rows"], np.float32) if case["rows"] else np.zeros((0, 7), np.float32)
        output: dict[str, Any] = {"boxes": rows}
        if case["masks"] is not None:
            output["masks"] = drawing.masks(case["masks"], [row[2:6] for row in case["rows"]], width, height)
        keys = {int(k): v for k, v in case["by_class"].items()}
        threshold = V1 if options["pipeline_version"] == "v1" else 0.3
        merge = {int(k): v for k, v in case["modes"].items()} if case["modes"] else case["mode"] or MODES
        boxes = self._process(
            [output],
            [{"ori_img_size": (width, height)}],
            threshold=keys or case["threshold"] or threshold,
            layout_nms=True,
            layout_unclip_ratio={int(k): v for k, v in case["unclips"].items()} or case["unclip"] or [1.0, 1.0],
            layout_merge_bboxes_mode=merge,
            layout_shape_mode=given["layout_shape_mode"],
        )[0]
        return [{"input_path": None, "page_index": None, "boxes": list(boxes)}]


class Reader:
    """Answers from a list for each prompt, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.calls: list[list[Any]] = []

    def predict(self, batch: list[dict[str, Any]], skip_special_tokens: bool, **given: Any) -> list[dict[str, Any]]:
        found = []
        for item in batch:
            prompt, pixels = item["query"], item["image"]
            known = self.answers[prompt]
            answer = known[sum(call[0] == prompt for call in self.calls) % len(known)]
            digest = hashlib.sha256(np.ascontiguousarray(pixels[:, :, ::-1]).tobytes()).hexdigest()[:16]
            sampling = [given.get("temperature"), given.get("top_p"), given.get("repetition_penalty"), given["max_new_tokens"]]
            call = [
                prompt,
                list(pixels.shape[:2]),
                digest,
                float(pixels.mean()),
                given["min_pixels"],
                given["max_pixels"],
                sampling,
            ]
            self.calls.append([*call, skip_special_tokens, answer])
            found.append({"result": answer})
        return found


def pipeline(layout: Layout, reader: Reader) -> Any:
    made = _PaddleOCRVLPipeline({}, initial_predictor=False)
    made.use_doc_preprocessor = False
    made.use_layout_detection = True
    made.use_chart_recognition = made.use_seal_recognition = made.use_ocr_for_image_block = False
    made.format_block_content = made.use_queues = False
    made.merge_layout_blocks = True
    made.markdown_ignore_labels = []
    made.layout_prep_cpu_workers = 0
    made.layout_det_model, made.vl_rec_model = layout, reader
    made.batch_sampler, made.img_reader, made.crop_by_boxes = ImageBatchSampler(batch_size=1), ReadImage("BGR"), CropByBoxes()
    return made


FORWARDED = (
    "use_chart_recognition", "use_seal_recognition", "use_ocr_for_image_block", "merge_layout_blocks", "layout_shape_mode",
    "format_block_content", "markdown_ignore_labels", "min_pixels", "max_pixels", "temperature", "top_p",
    "repetition_penalty", "max_new_tokens",
)  # fmt: skip


def read(made: Any, case: dict[str, Any], width: int, height: int) -> Any:
    """One page through the whole official pipeline."""
    made.layout_det_model.case, made.vl_rec_model.answers, made.vl_rec_model.calls = case, case["answers"], []
    given = {key: case["opts"][key] for key in FORWARDED}
    pixels = np.ascontiguousarray(drawing.page(case["seed"], width, height)[:, :, ::-1])
    (result,) = made.predict(
        [pixels],
        use_layout_detection=case["layout"],
        prompt_label=case["opts"]["prompt_label"],
        vlm_extra_args=dict(case["opts"]["vlm_extra_args"]),
        **given,
    )
    return result


def told(result: Any) -> dict[str, Any]:
    """What is compared of a result."""
    whole = json.loads(json.dumps(result.json["res"], default=lambda value: value.tolist()))
    pretty = result._to_markdown(pretty=True)
    return {
        "json": whole,
        "md": pretty["markdown_texts"],
        "md_plain": result._to_markdown(pretty=False)["markdown_texts"],
        "md_num": result._to_markdown(pretty=True, show_formula_number=True)["markdown_texts"],
        "imgs": sorted(pretty["markdown_images"]),
    }


def attempt(work: Any) -> Any:
    try:
        return work()
    except Exception as error:  # what the official code does not survive is part of what is compared
        return {"raised": f"{type(error).__name__}: {error}"}


def document(made: Any, pages: list[dict[str, Any]], restructure: dict[str, bool]) -> dict[str, Any]:
    def one(case: dict[str, Any]) -> dict[str, Any]:
        found = told(read(made, case, *case["wh"]))
        return found | {"calls": made.vl_rec_model.calls}

    def whole(concatenate: bool) -> list[dict[str, Any]]:
        results = [read(made, case, *case["wh"]) for case in pages]
        return [told(found) for found in made.restructure_pages(results, concatenate_pages=concatenate, **restructure)]

    return {
        "pages": [attempt(lambda case=case: one(case)) for case in pages],
        "restructured": attempt(lambda: whole(False)),
        "one": attempt(lambda: whole(True)),
    }


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # paddlex prints
    logging.getLogger("paddlex").setLevel(logging.ERROR)
    np.seterr(all="ignore")  # outlines with two equal points
    made = pipeline(Layout(), Reader())
    for line in sys.stdin:
        given = json.loads(line)
        out.write(json.dumps(document(made, given["pages"], given["restructure"]), ensure_ascii=True) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
