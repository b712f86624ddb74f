"""Draws the sample documents: made by the project, from text of its own, the same bytes each time.

python samples/make.py        writes samples/documents and samples/expected.json
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
from PIL import Image

HERE = Path(__file__).parent
A4 = pymupdf.paper_rect("a4")
MARGIN = 56.0

ABSTRACT = (
    "We describe how an archive of paper becomes a table that can be queried. Pages are rasterized, their regions are "
    "found and read, and a ledger records what was done, so that a run that was interrupted goes on where it stopped."
)
SENTENCES = [
    "A page ends in exactly one state, and the states of all pages add up to the pages of the document.",
    "The unit that fails, retries and commits is a span of eight pages.",
    "Every commit is one object that is created only if nobody created it before.",
    "Two drivers can therefore not write the same output at the same time.",
    "A hostile page costs its own deadline and nothing else.",
    "What a reader sees follows from the order of the records alone.",
    "Parts that no record names are orphans; they take room and harm nobody.",
    "The text layer of a page is used where it can be trusted.",
    "Where it cannot, the page is read from its pixels.",
    "Memory is bounded by the bytes in flight, whatever the length of a document.",
]
CHINESE = [
    "档案数字化流程说明",
    "本页说明如何把纸质档案转换为结构化数据。首先对每一页进行栅格化，然后检测版面区域，最后识别文字内容。",
    "每一页都有唯一的状态：成功、空白、降级或失败。系统记录每一次提交，因此中断的任务可以继续执行。",
    "表格会转换为超文本标记，图片会保存为独立文件，页眉和页脚默认不写入正文。",
]


def main() -> None:
    folder = HERE / "documents"
    folder.mkdir(exist_ok=True)
    paper = two_columns()
    save(paper, folder / "paper-two-columns.pdf")
    save(form(), folder / "form-tables.pdf")
    save(chinese(), folder / "chinese.pdf")
    save(report(), folder / "report-table-across-pages.pdf")
    letter = plain_letter()
    save(scanned(letter, 0.4, 0), folder / "scan.pdf")
    save(scanned(letter, 0.0, 90), folder / "scan-rotated.pdf")
    (folder / "damaged.pdf").write_bytes(b"%PDF-1.7\n" + random.Random(1).randbytes(2000))
    expected = {
        "paper-two-columns.pdf": [
            "From paper to tables",
            "Two drivers can therefore not write",
            "A page ends in exactly one state",
        ],
        "form-tables.pdf": ["Application for access", "Reading room", "<table"],
        "chinese.pdf": ["档案数字化流程说明", "首先对每一页进行栅格化"],
        "report-table-across-pages.pdf": ["Stock of the reading rooms", "Shelf 1", "Shelf 60"],
        "scan.pdf": ["Dear colleagues", "reading room"],
        "scan-rotated.pdf": [],
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def save(document: Any, path: Path) -> None:
    document.set_metadata({})
    document.save(path, garbage=3, deflate=True, no_new_id=True)


def text(page: Any, rect: Any, words: str, size: float = 10, font: str = "tiro", align: int = 0) -> None:
    rect = pymupdf.Rect(rect.x0, rect.y0, rect.x1, rect.y1 + size)  # room for the last line's descent
    left = page.insert_textbox(rect, words, fontsize=size, fontname=font, align=align)
    assert left >= 0, f"does not fit by {left}: {words[:40]}"


def paragraphs(seed: int, count: int) -> str:
    dice = random.Random(seed)
    return "\n\n".join(" ".join(dice.sample(SENTENCES, 5)) for _ in range(count))


def two_columns() -> Any:
    document = pymupdf.open()
    for number in (1, 2):
        page = document.new_page(width=A4.width, height=A4.height)
        top = MARGIN
        if number == 1:
            text(page, pymupdf.Rect(MARGIN, 60, A4.width - MARGIN, 90), "From paper to tables", 20, "hebo", 1)
            text(page, pymupdf.Rect(90, 100, A4.width - 90, 160), ABSTRACT, 9, "tiit")
            top = 180
        middle = A4.width / 2
        for column, (x0, x1) in enumerate(((MARGIN, middle - 10), (middle + 10, A4.width - MARGIN))):
            text(page, pymupdf.Rect(x0, top, x1, top + 20), f"{number}.{column + 1} Method", 12, "hebo")
            text(page, pymupdf.Rect(x0, top + 26, x1, 560), paragraphs(10 * number + column, 3), 10)
        if number == 1:
            for step in range(12):
                height = 20 + 9 * (step % 7)
                page.draw_rect(
                    pymupdf.Rect(70 + 38 * step, 720 - height, 98 + 38 * step, 720), fill=(0.2, 0.3 + 0.05 * step, 0.6)
                )
            text(page, pymupdf.Rect(MARGIN, 728, A4.width - MARGIN, 745), "Figure 1: pages a second by month.", 9, "tiit", 1)
        text(page, pymupdf.Rect(MARGIN, 800, A4.width - MARGIN, 815), str(number), 9, "tiro", 1)
    return document


def grid(page: Any, x: float, y: float, widths: list[float], rows: list[list[str]], ruled: bool) -> float:
    height = 20.0
    for row in rows:
        left = x
        for width, cell in zip(widths, row, strict=True):
            box = pymupdf.Rect(left, y, left + width, y + height)
            if ruled:
                page.draw_rect(box, color=(0, 0, 0), width=0.8)
            page.insert_text((left + 4, y + 14), cell, fontsize=10, fontname="helv")
            left += width
        y += height
    return y


def form() -> Any:
    document = pymupdf.open()
    page = document.new_page(width=A4.width, height=A4.height)
    text(page, pymupdf.Rect(MARGIN, 50, A4.width - MARGIN, 80), "Application for access", 18, "hebo")
    text(page, pymupdf.Rect(MARGIN, 90, A4.width - MARGIN, 125), "Please fill in one form for each reader. " + SENTENCES[7])
    rows = [
        ["Name", "Room", "Day"],
        ["A. Meadow", "Reading room", "Monday"],
        ["B. River", "Map room", "Tuesday"],
        ["C. Stone", "Film room", "Friday"],
    ]
    bottom = grid(page, MARGIN, 140, [160, 160, 160], rows, ruled=True)
    text(page, pymupdf.Rect(MARGIN, bottom + 30, A4.width - MARGIN, bottom + 50), "Fees", 13, "hebo")
    fees = [
        ["Service", "Unit", "Fee"],
        ["Copy", "page", "0.20"],
        ["Scan", "page", "0.50"],
        ["Loan", "day", "3.00"],
        ["Film", "reel", "12.00"],
    ]
    grid(page, MARGIN, bottom + 60, [200, 140, 140], fees, ruled=False)
    return document


def report() -> Any:
    document = pymupdf.open()
    rows = [[f"Shelf {n}", str(100 + 7 * n % 90), f"{n * 3 % 17}.{n % 10}"] for n in range(1, 61)]
    header = ["Shelf", "Volumes", "Metres"]
    for number, some in enumerate((rows[:24], rows[24:58], rows[58:]), 1):
        page = document.new_page(width=A4.width, height=A4.height)
        text(page, pymupdf.Rect(MARGIN, 25, A4.width - MARGIN, 40), "Annual report", 8, "heit", 2)
        y = MARGIN
        if number == 1:
            text(page, pymupdf.Rect(MARGIN, 60, A4.width - MARGIN, 90), "Stock of the reading rooms", 18, "hebo")
            text(page, pymupdf.Rect(MARGIN, 100, A4.width - MARGIN, 240), paragraphs(77, 2))
            y = 260.0
        bottom = grid(page, MARGIN, y, [160, 160, 160], [header, *some], ruled=True)
        if number == 3:
            text(page, pymupdf.Rect(MARGIN, bottom + 20, A4.width - MARGIN, bottom + 160), paragraphs(78, 2))
        text(page, pymupdf.Rect(MARGIN, 805, A4.width - MARGIN, 820), f"Page {number} of 3", 8, "helv", 1)
    return document


def chinese() -> Any:
    document = pymupdf.open()
    page = document.new_page(width=A4.width, height=A4.height)
    text(page, pymupdf.Rect(MARGIN, 60, A4.width - MARGIN, 100), CHINESE[0], 20, "china-s", 1)
    y = 130.0
    for paragraph in CHINESE[1:]:
        text(page, pymupdf.Rect(MARGIN, y, A4.width - MARGIN, y + 80), paragraph, 12, "china-s")
        y += 90
    return document


def plain_letter() -> Any:
    document = pymupdf.open()
    page = document.new_page(width=A4.width, height=A4.height)
    text(page, pymupdf.Rect(MARGIN, 80, A4.width - MARGIN, 110), "Dear colleagues,", 13)
    words = "The reading room opens again on Monday. " + " ".join(SENTENCES[:6])
    text(page, pymupdf.Rect(MARGIN, 120, A4.width - MARGIN, 330), words, 13)
    text(page, pymupdf.Rect(MARGIN, 350, A4.width - MARGIN, 420), "With kind regards,\nthe archive", 13)
    return document


def scanned(original: Any, skew: float, turn: int) -> Any:
    """The first page as a picture, a little skewed, with the noise of a scanner; no text layer."""
    pixmap = original[0].get_pixmap(dpi=130, colorspace=pymupdf.csGRAY)
    picture = Image.frombytes("L", (pixmap.width, pixmap.height), pixmap.samples).rotate(
        skew, Image.Resampling.BICUBIC, fillcolor=255
    )
    noise = np.random.default_rng(5).normal(0, 4, (picture.height, picture.width))
    grey = np.clip(np.asarray(picture, np.float64) * 0.94 + 8 + noise, 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(grey).rotate(turn, expand=True).save(sink, "JPEG", quality=60)
    document = pymupdf.open()
    page = document.new_page(width=A4.width if turn == 0 else A4.height, height=A4.height if turn == 0 else A4.width)
    page.insert_image(page.rect, stream=sink.getvalue())
    return document


if __name__ == "__main__":
    main()
