"""The 25 classes of PP-DocLayoutV2/V3, what they are in our own words, and which of them are counted in reading order.

Invariant: a class is known by its number; the names are this list and no other, because the label list of a converted
checkpoint may be collapsed ("formula" twice). `Region.native_label` keeps the official word.
"""

from __future__ import annotations

from typing import Literal

OFFICIAL_LABELS = (
    "abstract", "algorithm", "aside_text", "chart", "content", "display_formula", "doc_title", "figure_title", "footer",
    "footer_image", "footnote", "formula_number", "header", "header_image", "image", "inline_formula", "number",
    "paragraph_title", "reference", "reference_content", "seal", "table", "text", "vertical_text", "vision_footnote",
)  # fmt: skip
CLASS_ID = {label: number for number, label in enumerate(OFFICIAL_LABELS)}

_OWN = {
    "abstract": "text", "algorithm": "code", "aside_text": "text", "chart": "figure", "content": "text",
    "display_formula": "formula", "doc_title": "title", "figure_title": "figure_caption", "footer": "footer",
    "footer_image": "footer", "footnote": "footnote", "formula_number": "text", "header": "header",
    "header_image": "header", "image": "figure", "inline_formula": "formula", "number": "page_number",
    "paragraph_title": "title", "reference": "reference", "reference_content": "reference", "seal": "figure",
    "table": "table", "text": "text", "vertical_text": "text", "vision_footnote": "footnote",
    # without layout detection the whole page is one block of such a label
    "ocr": "text", "formula": "formula", "spotting": "text",
}  # fmt: skip
_OFFICIAL = {
    "title": "paragraph_title", "list": "text", "figure": "image", "figure_caption": "figure_title",
    "table_caption": "figure_title", "formula": "display_formula", "code": "algorithm", "page_number": "number",
    "reference": "reference_content",
}  # fmt: skip

UNORDERED = frozenset({
    "figure_title", "vision_footnote", "image", "chart", "table", "header", "header_image", "footer", "footer_image",
    "footnote", "aside_text",
})  # fmt: skip
PICTURES = ("image", "header_image", "footer_image")  # read only when asked for
FIGURES = ("image", "figure", "seal")  # what may stand inside a table

PipelineVersion = Literal["v1", "v1.5", "v1.6"]
MergeMode = Literal["large", "small", "union"]
ShapeMode = Literal["auto", "rect", "quad", "poly"]

# class -> least score, as the YAML of PaddleOCR-VL v1 has it; v1.5 and v1.6 have one value for all
V1_THRESHOLDS = dict.fromkeys(range(25), 0.5) | dict.fromkeys((5, 6, 15, 17, 22, 23), 0.4) | {20: 0.45}
V15_THRESHOLD = 0.3
MERGE_MODES: dict[int, MergeMode] = {number: "large" if number in (3, 5, 6, 15, 17) else "union" for number in range(25)}


def own_label(official: str) -> str:
    """One of `schema.LABELS` for an official word; "text" for one that is not known."""
    return _OWN.get(official, "text")


def official_label(native: str, own: str) -> str:
    """The official word of a region: its engine's own, where that is one, else the nearest to our label."""
    return native if native in _OWN else _OFFICIAL.get(own, own)


def default_thresholds(version: PipelineVersion) -> float | dict[int, float]:
    return dict(V1_THRESHOLDS) if version == "v1" else V15_THRESHOLD
