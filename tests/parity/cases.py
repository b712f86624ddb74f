"""Random documents for the differential test: rows of a layout model, options, and what a model answers."""

from __future__ import annotations

import random
from typing import Any

_TEXTS = [
    "plain text", "line a\nline b", "two\n\nparagraphs", "1.2 Title", "Abstract foo", "摘要 文本", "hyphen-\nated word", "",
    " ", "a \\(x\\) b $5", "\\[y\\]", "\\[\\[ z \\]\\]", "\\((1)\\)", "References\n[1] x", "参考文献\n[1]", "IV. Methods",
    "一、概述", "2023年报告", "第二章 方法", "(3) three", "A. App", "I am here", "Results vs. base.", "CONCLUSION:", "word " * 60,
    "ab" * 40, "abcdefgh" * 20, "same line\n" * 12, "<b>bold</b> & co", "| a | b |", "a" * 49, "x" * 50, "多行\n文本", "$$e$$",
    "\ttab", "tail  \n", "1 Intro", "1.1 Sub", "3.1.2 Foo.", "5.", "X ", "[F2] is no token here",
    "\u3000全角 1．2 标题", "# heading", "![](x) <table>", "win\r\nlines\r\n", "\u2028ls\u00a0nbsp ", "<|LOC_1|>", "\\[ unclosed",
    "\\(a\\) \\[b\\] $c$", "-\n-\n-", "REFERENCES\n", "摘要\n摘要", "  ABSTRACT  text", "I\nII", "a-\n\nb", "\n\n\n", "1.\n2.",
    "（一） 标题", "1、标题", "Ⅳ 标题", "e\u0301 😀 \u200b", "<fcel>a<nl>", "&lt;b&gt; &amp;amp;", "3) three", "12.",
    "abcdefgh" * 4 + "x" * 90, "no repeats " + "abc def ghi " * 12, "x\n" * 9 + "y", "\\[\\]\\(\\)", "十二、 标题",
    "1.2Hello", "A.", "(1)", "1.2.", "IV.", "-",
]  # fmt: skip
_FORMULAS = ["\\[ x=1 \\]", "\\( z \\)", "$$ a $$", "\\frac{1}{2}", "", "$a$ \\[b\\]", "E = mc^2\n", "$$",
    "\\[\\[ a \\]\\]", "$$a$$ $$b$$ \\tag{1}", " ", "(3)", "\\((4)\\)", "\n$$x$$\n"]  # fmt: skip
_CHARTS = ["h|k\n1|2", "a | b | c\n1 | 2\n", "", "one", "<x>|&\n\"|'", "a|b\n\n1|2", "|||", "\n", "x | y |\n1|2|3|4", "\r\n1|2"]
_EIGHT = [f"<|LOC_{n}|>" for n in (1, 2, 300, 4, 500, 600, 7, 999)]
_SPOTS = [
    f"<|TEXT_START|>a b<|TEXT_END|><|LOC_BEGIN|>{''.join(_EIGHT)}<|LOC_END|>",
    f"hi{''.join(_EIGHT)}there{''.join(_EIGHT[::-1])}",
    "no places",
    "".join(_EIGHT[:2]),
    f"<|TEXT_START|>open{''.join(_EIGHT)}",
    f"<|TEXT_START|>a<|TEXT_END|><|LOC_BEGIN|>{''.join(_EIGHT[:5])}<|LOC_END|>tail",
    f"<|TEXT_START|>a<|TEXT_END|>b<|LOC_BEGIN|>{''.join(_EIGHT)}<|LOC_END|>" * 2,
    f"far<|TEXT_START|>a<|TEXT_END|><|LOC_BEGIN|>{''.join(_EIGHT[:7])}<|LOC_12345678901|><|LOC_END|>",
    "x\ny" + "<|LOC_1000|>" * 9 + "<|LOC_0|>" * 8 + "<|LOC_12345|>" * 8,
    f"  {''.join(_EIGHT)} {' '.join(_EIGHT)}",
    "",
]
# what answers are put together of at random: pieces that mean something to one of the steps behind the model
_PIECES = [
    "\\(", "\\)", "\\[", "\\]", "\\[\\[", "\\]\\]", "$", "$$", "\\$", "x=1", " ", "\n", "-\n", "\n\n", "a", "1.2", "(3)",
    "I. ", "Abstract", "摘要", "References", "参考文献", "[F2]", "[F3]", "<table>", "<td>", "<th>", "<html>", "</body>",
    "|", "#", "...", "&amp;", "<", "一、", "（1）", "\r\n", "\t", "\u2028", "\u3000", "٣", "Ⅳ", "İ", "ß", "\u200b",
    "😀", "'", '"', "*", "_", "`",
]  # fmt: skip
_MARKS = [
    "<|TEXT_START|>", "<|TEXT_END|>", "<|LOC_BEGIN|>", "<|LOC_END|>", "a", " b\n", "\n\n", "<|LOC_|>", "<|LOC_x|>", "<|LOC_-1|>",
]  # fmt: skip
_CELLS = ["a", "12.5", "x & y", " sp ", "多行\n文本", "<i>", "[F2]", "[F3]", "[F22]", "[F7]", "-", '"q"']
_V15_LABELS = [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 22, 22, 22, 23, 24, 0, 1, 2, 4, 21, 14]


def document(seed: int) -> dict[str, Any]:
    """One to four pages with one set of options."""
    rng = random.Random(seed)
    options = _options(rng)
    layout = rng.random() < 0.92
    if layout and rng.random() < 0.2:
        pages = _chain(rng, options)
    else:
        pages = [_page(rng, options, layout) for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]
    restructure = {"merge_tables": rng.random() < 0.8, "relevel_titles": rng.random() < 0.8}
    return {"pages": pages, "restructure": restructure}


def _chain(rng: random.Random, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Pages that end and begin with a table, some of whose columns fit, under titles of many heights."""
    pages = [_page(rng, options, True) for _ in range(rng.choice((2, 3, 4)))]
    head = "".join(f"<fcel>h{n}" for n in range(rng.randrange(1, 4))) + "<nl>"
    for case in pages:
        width, height = case["wh"]
        left, right = 0.1 * width, rng.choice((0.9, 0.9, 0.88, 0.5)) * width
        rows: list[list[float]] = []
        top = 0.02 * height
        for label in rng.choice(([12, 21], [21], [16, 21, 17, 17, 21, 10], [17, 21], [21, 17, 17, 17, 21], [22, 21, 8])):
            high = rng.uniform(0.02, 0.12) * height
            rows.append([float(label), 0.9, left, round(top), right, round(top + high), float(len(rows))])
            top += high + 0.03 * height
        case |= {
            "rows": rows,
            "masks": None,
            "by_class": {},
            "threshold": None,
            "mode": None,
            "modes": {},
            "unclip": None,
            "unclips": {},
        }
        tables = [head + _table(rng) if rng.random() < 0.7 else _table(rng) for _ in range(4)]
        case["answers"]["Table Recognition:"] = tables
    return pages


def _options(rng: random.Random) -> dict[str, Any]:
    extra = {}
    for task in ("ocr", "table", "chart", "formula", "seal"):
        if rng.random() < 0.2:
            extra |= {f"{task}_min_pixels": rng.choice((3136, 112896)), f"{task}_max_pixels": rng.choice((802816, 1605632))}
    ignored = ["number", "footnote", "header", "header_image", "footer", "footer_image", "aside_text"]
    return {
        "pipeline_version": rng.choice(("v1", "v1.5", "v1.6")),
        "layout_shape_mode": rng.choice(("auto", "auto", "auto", "rect", "quad", "poly")),
        "use_chart_recognition": rng.random() < 0.4,
        "use_seal_recognition": rng.random() < 0.4,
        "use_ocr_for_image_block": rng.random() < 0.3,
        "merge_layout_blocks": rng.random() < 0.8,
        "format_block_content": rng.random() < 0.25,
        "markdown_ignore_labels": rng.choice((ignored, ignored, [], ["text", "number"], ["table"])),
        "min_pixels": rng.choice((112896, 112896, 50176)),
        "max_pixels": rng.choice((1003520, 1003520, 2007040)),
        "vlm_extra_args": extra,
        "temperature": rng.choice((0.0, 0.7)),
        "top_p": rng.choice((None, 0.9)),
        "repetition_penalty": rng.choice((None, 1.1)),
        "max_new_tokens": rng.choice((4096, 1024)),
        "prompt_label": rng.choice(("ocr", "formula", "table", "chart", "seal", "spotting")),
    }


def _page(rng: random.Random, options: dict[str, Any], layout: bool) -> dict[str, Any]:
    width, height = rng.choice(((600, 840), (600, 840), (840, 600), (1000, 1400), (300, 300), (1600, 400), (61, 900), (1800, 45)))
    rows = _rows(rng, width, height) if layout else []
    chance = rng.random()
    return {
        "wh": [width, height],
        "seed": rng.randrange(10**6),
        "layout": layout,
        "rows": rows,
        "masks": rng.randrange(10**6) if rng.random() < 0.5 else None,
        "opts": options,
        "by_class": {str(rng.randrange(25)): rng.choice((0.2, 0.7)) for _ in range(6)} if chance < 0.08 else {},
        "threshold": rng.choice((0.3, 0.6)) if 0.08 <= chance < 0.16 else None,
        "mode": rng.choice(("large", "small", "union")) if 0.16 <= chance < 0.25 else None,
        "modes": {str(n): rng.choice(("large", "small", "union")) for n in range(25)} if 0.25 <= chance < 0.32 else {},
        "unclip": rng.choice(([1.1, 1.3], [0.8, 1.0], [1.05, 1.05], [0.1, 3.0])) if rng.random() < 0.15 else None,
        "unclips": {str(n): rng.choice(([1.2, 0.9], [2.0, 2.0])) for n in range(0, 25, 2)} if rng.random() < 0.08 else {},
        "answers": _answers(rng),
    }


def _rows(rng: random.Random, width: int, height: int) -> list[list[float]]:
    """Boxes in columns, boxes anywhere, boxes that nearly repeat others or lie in them."""
    boxes: list[list[float]] = []
    labels: list[int] = []
    for _ in range(rng.choice((0, 1, 2, 5, 8, 12, 20))):
        kind = rng.random()
        label = rng.choice(_V15_LABELS)
        if boxes and kind < 0.25:  # inside another
            x0, y0, x1, y1 = rng.choice(boxes)
            ax, ay = x0 + (x1 - x0) * rng.random() * 0.5, y0 + (y1 - y0) * rng.random() * 0.5
            box = [ax, ay, ax + (x1 - x0) * rng.random() * 0.5, ay + (y1 - y0) * rng.random() * 0.5]
            label = rng.choice((14, 20, 22, 15, label))
        elif boxes and kind < 0.35:  # nearly the same
            box = [edge + rng.uniform(-6, 6) for edge in rng.choice(boxes)]
        elif boxes and kind < 0.5:  # under it, one edge shared
            x0, y0, x1, y1 = rng.choice(boxes)
            box = [x0 + rng.uniform(-3, 3), y1 + rng.uniform(-4, 30), x1 + rng.choice((0, 40, -30)), y1 + rng.uniform(20, 120)]
            label = 22
        elif boxes and kind < 0.6:  # the next column
            x0, y0, x1, y1 = rng.choice(boxes)
            box = [x1 + rng.uniform(1, 30), y0 - rng.uniform(0, 40), x1 + (x1 - x0), y1]
            label = 22
        elif kind < 0.63:  # the whole page, or thin
            box = rng.choice(
                ([0.0, 0.0, float(width), float(height)], [10.0, 10.0, 13.0, height - 5.0], [5.0, 9.0, width - 5.0, 13.0])
            )
        else:
            x0, y0 = rng.uniform(-10, width - 5), rng.uniform(-10, height - 5)
            box = [x0, y0, x0 + rng.choice((4, 30, 60, 200, 450)), y0 + rng.choice((3, 20, 30, 80, 300))]
        boxes.append([round(min(edge, limit + 12.0), 2) for edge, limit in zip(box, (width, height) * 2, strict=True)])
        labels.append(label)
    ranks = list(range(len(boxes)))
    rng.shuffle(ranks)
    votes = rng.random() < 0.3
    rows = []
    for box, label, rank in zip(boxes, labels, ranks, strict=True):
        score = round(rng.choice((rng.random(), 0.9, 0.3, 0.5)), 4)
        if box[2] < box[0]:
            box[0], box[2] = box[2], box[0]
        if box[3] < box[1]:
            box[1], box[3] = box[3], box[1]
        rows.append(
            [float(label), score, *box, float(rank // 2 if votes else rank), *([float(rng.randrange(50))] if votes else [])]
        )
    return rows


def _answers(rng: random.Random) -> dict[str, list[str]]:
    return {
        "OCR:": [_said(rng, _TEXTS) for _ in range(30)],
        "Formula Recognition:": [_said(rng, _FORMULAS) for _ in range(8)],
        "Chart Recognition:": [_said(rng, _CHARTS) for _ in range(8)],
        "Seal Recognition:": [_said(rng, _TEXTS) for _ in range(8)],
        "Spotting:": [_spotted(rng) for _ in range(4)],
        "Table Recognition:": [_table(rng) for _ in range(8)],
    }


def _said(rng: random.Random, known: list[str]) -> str:
    return rng.choice(known) if rng.random() < 0.7 else "".join(rng.choice(_PIECES) for _ in range(rng.randrange(10)))


def _spotted(rng: random.Random) -> str:
    """A known answer, or marks, texts and places in any order, some of them incomplete."""
    if rng.random() < 0.4:
        return rng.choice(_SPOTS)

    def places(count: int) -> str:
        return "".join(f"<|LOC_{rng.choice((0, 1, 7, 333, 999, 1000, 123456, '007', '٣', 9999999999))}|>" for _ in range(count))

    def part() -> str:
        if rng.random() < 0.4:
            return f"<|TEXT_START|>{_said(rng, _TEXTS)}<|TEXT_END|><|LOC_BEGIN|>{places(8)}<|LOC_END|>"
        return rng.choice((rng.choice(_MARKS), places(rng.choice((1, 7, 8, 9, 16)))))

    return "".join(part() for _ in range(rng.randrange(9)))


def _table(rng: random.Random) -> str:
    """OTSL, mostly well formed; sometimes HTML, text or nothing."""
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(
            ("", "no tags", "<nl>", "<table><tr><th>h</th></tr><tr><td colspan=2>x</td></tr></table>", "<fcel><nl><lcel>")
        )
    columns = rng.randrange(1, 5)
    head = "".join(f"<fcel>h{n}" for n in range(columns)) + "<nl>"
    rows = [head] if rng.random() < 0.6 else []
    for _ in range(rng.randrange(1, 5)):
        wide = columns if rng.random() < 0.8 else rng.randrange(1, 6)
        cells = [rng.choice((f"<fcel>{rng.choice(_CELLS)}",) * 5 + ("<ecel>", "<lcel>", "<ucel>", "<xcel>")) for _ in range(wide)]
        if rng.random() < 0.06:
            cells[rng.randrange(wide)] = "<fcel>"
        rows.append("".join(cells) + "<nl>")
    text = "".join(rows)
    return text if rng.random() < 0.9 else text.removesuffix("<nl>") + rng.choice(("", "tail", "<nl><nl>"))
