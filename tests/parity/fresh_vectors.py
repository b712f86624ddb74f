"""Vectors of every kind that `jobs.parity` holds, drawn afresh: hostile inputs, and what the official code makes of them.

`python tests/parity/fresh_vectors.py DIR SEED COUNT`, in the environment of the official code (`make parity` starts it); writes
`DIR/<kind>.jsonl`. Whole pages are the differential test's part (`oracle.py`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from oracle import LABELS, MODES, V1
from paddlex.inference.models.layout_analysis.processors import LayoutAnalysisProcess
from paddlex.inference.pipelines.layout_parsing import merge_table, title_level
from paddlex.inference.pipelines.paddleocr_vl import uilts

Made = tuple[dict[str, Any], Callable[[], Any]]
_SPACES = [" ", "\n", "\t", "\u3000", "\u00a0", "\x0b", "\r\n", "\u2028", "\x1c", ""]
_WORDS = ["a", "12.5", "x & y", "多行", "<b>", '"q"', "&amp;", "é", "😀", "\u200b", "1,000", "fcel", "</td>", "\\(x\\)", "$5"]
_TAGS = ["<fcel>", "<ecel>", "<lcel>", "<ucel>", "<xcel>", "<nl>"]
_ODD_TAGS = ["<FCEL>", "<fcel", "fcel>", "<nl", "<<fcel>>", "<ched>", "<fcel/>", "< fcel>"]


def _text(rng: random.Random) -> str:
    return "".join(rng.choice(_SPACES) + rng.choice(_WORDS) for _ in range(rng.choice((0, 1, 1, 2, 4)))) + rng.choice(_SPACES)


def otsl_to_html(rng: random.Random) -> Made:
    parts = []
    for _ in range(rng.choice((0, 1, 3, 8, 20, 60))):
        parts.append(rng.choice(_TAGS if rng.random() < 0.95 else _ODD_TAGS))
        if rng.random() < (0.9 if parts[-1] == "<fcel>" else 0.15):
            parts.append(_text(rng))
    said = rng.choice(("", "", "", "before ", "\n")) + "".join(parts) + rng.choice(("", "", "<nl>", "<nl><nl>", "tail"))
    return {"in": said}, lambda: uilts.convert_otsl_to_html(said)


def truncate_repetition(rng: random.Random) -> Made:
    letters = rng.choice(("ab", "abc 1", "abcdefgh\n", "多a\n ", "x\r\n", "é😀 \u3000"))
    unit = "".join(rng.choice(letters) for _ in range(rng.choice((1, 2, 7, 8, 9, 20, 50, 121))))
    said = "".join(rng.choice(letters) for _ in range(rng.choice((0, 0, 1, 30, 200)))) + unit * rng.choice(
        (1, 2, 4, 5, 6, 9, 10, 11, 40)
    )
    if rng.random() < 0.3:
        said = "\n".join([rng.choice((unit, unit, unit, unit, "other", "")) for _ in range(rng.randrange(5, 30))])
    said = rng.choice(("", "", " ", "\n")) + said + rng.choice(("", "", unit[: len(unit) // 2], "\n", " ", "tail"))
    least = rng.choice((50, 50, 5000, 1))
    return {"in": said, "min_count": least}, lambda: uilts.truncate_repetitive_content(said, min_count=least)


def _box(rng: random.Random, known: list[list[int]], odd: bool = True) -> list[int]:
    kind = rng.random()
    if known and kind < 0.55:
        x0, y0, x1, y1 = rng.choice(known)
        move = rng.choice(
            (
                lambda: [x0 + rng.randint(-6, 6), y0 + rng.randint(-6, 6), x1 + rng.randint(-6, 6), y1 + rng.randint(-6, 6)],
                lambda: [
                    x0 + rng.randint(-6, 6),
                    y1 + rng.randint(-5, 30),
                    x1 + rng.choice((0, 5, 6, -40, 80)),
                    y1 + rng.randint(0, 90),
                ],
                lambda: [x1 + rng.randint(-1, 40), y0 - rng.randint(0, 60), x1 + rng.randint(1, 300), y1],
                lambda: [x0 + (x1 - x0) // 4, y0 + (y1 - y0) // 4, x1 - (x1 - x0) // 4, y1],
                lambda: [x0, y0, x1, y1],
            )
        )
        moved = move()
        if rng.random() < 0.9:  # corners are seldom swapped
            moved[2:] = [max(moved[0], moved[2]), max(moved[1], moved[3])]
        return moved
    x0, y0 = rng.randint(-20, 990), rng.randint(-20, 1390)
    wide, high = (rng.choice((0, 1, 5, 6, 7, 60, 200, 900, 20000 if odd else 900)) for _ in range(2))
    return [x0, y0, x0 + wide, y0 + high]


def _boxes(rng: random.Random, most: int, odd: bool = True) -> list[list[int]]:
    boxes: list[list[int]] = []
    for _ in range(rng.randint(0, most)):
        boxes.append(_box(rng, boxes, odd))
    return boxes


def filter_overlap(rng: random.Random) -> Made:
    outlined = rng.random() < 0.4
    boxes = []
    for x0, y0, x1, y1 in _boxes(rng, 9):
        label = rng.choice([*LABELS, "inline_formula", "table", "image", "text", "reference"])
        box = {"cls_id": LABELS.index(label), "label": label, "score": 0.9, "coordinate": [x0, y0, x1, y1]}
        if outlined:
            cut = rng.uniform(0, 1)
            shape = [[x0, y0], [x1, y0 + (y1 - y0) * cut], [x1, y1], [x0 + (x1 - x0) * cut, y1]]
            box["polygon_points"] = rng.choice((shape, [*shape, shape[0]], [[x0, y0], [x1, y1], [x1, y0], [x0, y1]]))
        boxes.append(box)

    def out() -> list[int]:
        numbered = [box | {"number": number} for number, box in enumerate(boxes)]
        return [box["number"] for box in uilts.filter_overlap_boxes({"boxes": numbered}, "auto")["boxes"]]

    return {"in": boxes}, out


_PROCESS = LayoutAnalysisProcess(labels=LABELS, scale_size=[800, 800])


def layout_postprocess(rng: random.Random) -> Made:
    width, height = rng.choice(((1000, 1400), (1400, 1000), (1, 1), (30, 2000), (20000, 300), (800, 800)))
    votes = rng.random() < 0.3
    rows = []
    scale = width / 1000, height / 1400
    for box in _boxes(rng, 30):
        edges = [edge * scale[side % 2] + rng.choice((0, 0.5, 0.49, rng.uniform(-2, 2))) for side, edge in enumerate(box)]
        score = rng.choice((rng.random(), rng.random(), 0.3, 0.4, 0.5, 0.45, 0.9, 0.9, 1.0, 0.0))
        rank = [float(rng.randint(0, 12)), *([float(rng.randint(0, 5))] if votes else [])]
        rows.append([float(rng.choice((14, 22, 21, 20, rng.randrange(25)))), score, *edges, *rank])
    rows = np.array(rows, np.float32).reshape(-1, 8 if votes else 7).tolist()
    version = rng.choice(("v1", "v1.5"))

    def out() -> Any:
        found = _PROCESS(
            [{"boxes": np.array(rows, np.float32).reshape(-1, 8 if votes else 7)}],
            [{"ori_img_size": (width, height)}],
            threshold=V1 if version == "v1" else 0.3,
            layout_nms=True,
            layout_unclip_ratio=[1.0, 1.0],
            layout_merge_bboxes_mode=MODES,
            layout_shape_mode="auto",
        )[0]
        return [{k: v for k, v in box.items() if k != "polygon_points"} for box in found]

    return {"raw": rows, "wh": [width, height], "threshold": version}, out


def merge_blocks(rng: random.Random) -> Made:
    labels = ["text", "text", "text", "text", "table", "image", "chart", "paragraph_title", "seal", "display_formula"]
    blocks = [{"label": rng.choice(labels), "box": box} for box in _boxes(rng, 12, odd=False)]

    def out() -> Any:
        given = []
        for number, block in enumerate(blocks):
            x0, y0, x1, y1 = block["box"]
            given.append(block | {"img": np.zeros((max(1, y1 - y0), max(1, x1 - x0), 3), np.uint8), "number": number})
        found = uilts.merge_blocks(given, ["image", "header_image", "footer_image", "chart", "seal", "table"])
        return [
            {
                "idx": block["number"],
                "group_id": block.get("group_id"),
                "aligns": block.get("merge_aligns"),
                "img_hw": None if block["img"] is None else list(block["img"].shape[:2]),
            }
            for block in found
        ]

    return {"in": blocks}, out


def _html(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return rng.choice(
            ("", "text", "<table></table>", "<table><tr></tr></table>", "<p>x</p>", "<tr><td>a</td></tr>", "<table><tr>")
        )
    cells = ["a", "b", "Ａ", " a ", "a&amp;b", "<b>a</b>", "", "1", "<table><tr><td>n</td></tr></table>", "<br>", "'", "é"]
    columns, out = rng.randint(1, 3), []
    for row in range(rng.randint(1, 7)):
        count = columns if rng.random() < 0.8 else rng.randint(0, 4)
        line = ""
        for _ in range(count):
            tag = rng.choice(("td", "td", "td", "th"))
            span = rng.choice(
                (
                    "",
                    "",
                    "",
                    "",
                    ' colspan="2"',
                    ' rowspan="2"',
                    " rowspan=3",
                    ' COLSPAN="2"',
                    *([' colspan="x"'] if rng.random() < 0.05 else []),
                )
            )
            line += f"<{tag}{span}>{'h' if row == 0 and rng.random() < 0.7 else rng.choice(cells)}</{tag}>"
        out.append(f"<tr>{line}</tr>" if rng.random() < 0.97 else f"<tr>{line}")
    body = "".join(out)
    wrap = rng.choice(
        ("<table>{}</table>",) * 5
        + ("<table border=1><thead>{}</thead></table>", "<html><body><table>{}</table></body></html>", "{}")
    )
    return wrap.replace("{}", body)


def merge_tables(rng: random.Random) -> Made:
    around = [
        "number",
        "header",
        "footer",
        "text",
        "seal",
        "figure_title",
        "footnote",
        "header_image",
        "footer_image",
        "vision_footnote",
    ]
    pages = []
    for _ in range(rng.randint(1, 5)):
        page = [[rng.choice(around[:5]), [0, 0, 100, 50], rng.choice(("x", "continued"))] for _ in range(rng.choice((0, 0, 1)))]
        page += [
            ["table", [0, 0, rng.choice((100, 100, 105, 109, 110, 111, 0, 300)), 50], _html(rng)]
            for _ in range(rng.choice((0, 1, 1, 1, 2)))
        ]
        page += [[rng.choice(around), [0, 0, 100, 50], "x"] for _ in range(rng.choice((0, 0, 1)))]
        pages.append(page)

    def out() -> Any:
        made, number = [], 0
        for page in pages:
            made.append([])
            for label, box, content in page:
                ids = {"global_block_id": number, "global_group_id": number}
                made[-1].append(SimpleNamespace(label=label, bbox=box, content=content, **ids))
                number += 1
        merge_table.merge_tables_across_pages(made)
        return [[[block.content, block.global_block_id, block.global_group_id] for block in page] for page in made]

    return {"in": pages}, out


def _title(rng: random.Random) -> str:
    numbers = [
        "1", "1.1", "1.2.3", "10.", "(1)", "（2）", "1)", "IV.", "iv)", "X", "I", "A.", "b)", "一、", "第二章", "（三）", "十二 ",
        "2023年", "第3章", "1．2", "Ⅳ.", "٣", "1.a", "V", "十 ", "二十一", "IV．",
    ]  # fmt: skip
    words = [
        "Intro",
        "概述",
        "ABSTRACT",
        "Results:",
        "related work",
        "致谢 ：",
        "Conclusion",
        "am here",
        "",
        "Data",
        "résumé",
        "ß",
    ]
    first = rng.choice(numbers) if rng.random() < 0.7 else ""
    return rng.choice(("", "", " ", "\n")) + first + rng.choice(("", " ", "  ", "\u3000", "\n")) + rng.choice(words)


def title_levels(rng: random.Random) -> Made:
    titles = [
        [_title(rng), rng.choice((1, 20, 200, 400, rng.randint(1, 900))), rng.choice((1, 20, 21, 40, rng.randint(1, 90)))]
        for _ in range(rng.randint(1, 14))
    ]

    def out() -> list[int]:
        blocks = [SimpleNamespace(label="paragraph_title", content=text, bbox=[0, 0, wide, high]) for text, wide, high in titles]
        return [block.title_level for block in title_level.assign_levels_to_parsing_res([blocks])[0]]

    return {"in": titles}, out


def title_symbol(rng: random.Random) -> Made:
    said = _title(rng)
    return {"in": said}, lambda: list(title_level.get_symbol_and_level(said))


KINDS = (
    otsl_to_html, truncate_repetition, filter_overlap, layout_postprocess, merge_blocks, merge_tables, title_levels, title_symbol,
)  # fmt: skip


def main(folder: Path, seed: int, count: int) -> None:
    logging.getLogger("paddlex").setLevel(logging.ERROR)
    np.seterr(all="ignore")
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        rng = random.Random(f"{seed} {kind.__name__}")
        with (folder / f"{kind.__name__}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                vector, made = kind(rng)
                try:
                    vector["out"] = made()
                except Exception as error:
                    vector["out"] = {"__exc__": type(error).__name__}
                file.write(json.dumps(vector) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
