"""Draws the sample documents and writes what their Markdown must say to `expected.json`.

    python samples/make.py [FOLDER]

Everything here was written for this project. Two runs with the same PyMuPDF and Pillow give the same bytes; the
committed files are what counts, so nobody needs to run this. Pages are A4, sizes in points.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
from PIL import Image

WIDTH, HEIGHT = 595.0, 842.0
BLACK = (0.0, 0.0, 0.0)
GREY = (0.45, 0.45, 0.45)
PALE = (0.9, 0.9, 0.93)

Table = list[list[str]]


class Sheet:
    """A page being written from the top down; `y` is where the next line's top comes."""

    def __init__(self, document: pymupdf.Document) -> None:
        self.page = document.new_page(width=WIDTH, height=HEIGHT)
        self.y = 60.0

    def line(self, text: str, x: float, y: float, size: float = 10, font: str = "helv", color: Any = BLACK) -> None:
        self.page.insert_text((x, y), text, fontsize=size, fontname=font, color=color)

    def centre(self, text: str, y: float, size: float, font: str = "helv") -> None:
        width = pymupdf.get_text_length(text, fontname=font, fontsize=size)
        self.line(text, (WIDTH - width) / 2, y, size, font)

    def paragraph(
        self, text: str, x: float = 60, width: float = 475, size: float = 10, font: str = "helv", gap: float = 7
    ) -> None:
        """Wraps `text`, moves `y` past it."""
        lead = size * 1.32
        for row in wrap(text, width, size, font):
            self.line(row, x, self.y + size, size, font)
            self.y += lead
        self.y += gap

    def heading(self, text: str, x: float = 60, size: float = 13) -> None:
        self.y += 4
        self.line(text, x, self.y + size, size, "hebo")
        self.y += size * 1.6

    def rule(self, x0: float, y0: float, x1: float, y1: float, width: float = 0.7) -> None:
        self.page.draw_line((x0, y0), (x1, y1), color=BLACK, width=width)

    def table(self, rows: Table, x: float, widths: Sequence[float], row_height: float = 20, size: float = 9.5) -> None:
        """A ruled table with a shaded header."""
        total = sum(widths)
        self.page.draw_rect((x, self.y, x + total, self.y + row_height), color=None, fill=PALE)
        for index, row in enumerate(rows):
            left = x
            for width, cell in zip(widths, row, strict=True):
                bold = "hebo" if index == 0 else "helv"
                self.line(cell, left + 5, self.y + row_height * 0.68, size, bold)
                left += width
            self.rule(x, self.y, x + total, self.y)
            self.y += row_height
        self.rule(x, self.y, x + total, self.y)
        left = x
        for width in [*widths, 0.0]:
            self.rule(left, self.y - row_height * len(rows), left, self.y)
            left += width
        self.y += 12


def wrap(text: str, width: float, size: float, font: str = "helv") -> list[str]:
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if pymupdf.get_text_length(longer, fontname=font, fontsize=size) <= width:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows


def finish(document: pymupdf.Document, path: Path, title: str) -> None:
    date = "D:20260101000000Z"
    document.set_metadata({"title": title, "producer": "pagemill samples", "creationDate": date, "modDate": date})
    document.save(path, garbage=3, deflate=True, deflate_fonts=True, no_new_id=True)
    document.close()


# -- born digital -----------------------------------------------------------------------------------------------------

PAPER_TITLE = "Counting Lanterns: A Census of Harbour Lights"
ABSTRACT = (
    "We counted every lamp along the harbour wall of an invented town on forty evenings and asked how many of them "
    "are needed. A lamp is needed when its removal leaves a stretch of wall darker than moonlight. Of 312 lamps, 87 "
    "can be switched off without anybody walking in the dark."
)
INTRODUCTION = (
    "The harbour of Ostermoor has been lit since the wall was built. Nobody planned the lamps: each was put up after "
    "a complaint, and none was ever taken down. A town that wants to see the stars again has to know which of its "
    "lamps do any work.",
    "Earlier censuses counted lamps from a boat at sea. From there the bright ones hide the weak ones, so that the "
    "totals were always too small. We walked instead, with a meter in one hand and a notebook in the other.",
    "Our question is modest. We do not ask how bright a wall ought to be, only how much of the present brightness "
    "would be missed. The answer turns out to depend on the distance between lamps far more than on their age.",
)
METHOD = (
    "Every evening two walkers started at opposite ends of the wall and met near the fish market. Each of them noted "
    "the reading of the meter every five paces. The two columns of figures were compared the next morning, and an "
    "evening was repeated when they differed by more than a tenth.",
    "A lamp was then removed on paper. We subtracted its share of the light from the readings around it and looked "
    "for paces that fell below the brightness of a half moon. The procedure has three steps:",
)
STEPS = (
    "measure the wall with all lamps burning;",
    "subtract one lamp and look for dark paces;",
    "put the lamp back and go on to the next.",
)
RESULTS = (
    "The spacing of the lamps explains most of what we saw. Where lamps stand closer than nine metres, every second "
    "one can go. Figure 1 shows the share of needed lamps for the four parts of the wall.",
    "The oldest part of the wall, at the customs house, has the fewest lamps and needs all of them. The youngest part, "
    "at the ferry, could lose more than half. Residents there told us that they close their curtains at night.",
)
DISCUSSION = (
    "A census on foot is slow, and ours took two winters. It has the advantage that a lamp once counted has also been "
    "seen: nine lamps of the official register do not exist, and four that do exist are in no register.",
    "We would like to repeat the count in summer, when the leaves of the plane trees shade some of the lamps. Until "
    "then we advise the harbour office to begin with the ferry.",
    "Whoever repeats this work should carry a spare battery. On three of the forty evenings the meter went dark before "
    "the lamps did, and the walk had to be made again.",
)
REFERENCES = (
    "[1] A. Brandt. Walking and counting. Ostermoor Papers 3, 2021.",
    "[2] L. Okafor and M. Lind. Lamps seen from the sea. Ostermoor Papers 7, 2024.",
)


def paper(path: Path) -> None:
    document = pymupdf.open()
    left, right, column = 54.0, 307.0, 234.0

    def body(sheet: Sheet, x: float, top: float, parts: Sequence[str]) -> None:
        sheet.y = top
        for part in parts:
            if part.startswith("# "):
                sheet.heading(part[2:], x, 12)
            elif part.startswith("- "):
                sheet.line("\u2022", x + 6, sheet.y + 9.6, 9.6)
                sheet.paragraph(part[2:], x + 18, column - 18, 9.6, gap=3)
            else:
                sheet.paragraph(part, x, column, 9.6)

    first = Sheet(document)
    first.line("Ostermoor Papers 9 (2026)", 54, 36, 8, "heit", GREY)
    first.centre(PAPER_TITLE, 82, 19, "hebo")
    first.centre("Ines Halvorsen and Tomas Quell", 106, 11)
    first.centre("Institute for Small Questions, Ostermoor", 122, 9.5, "heit")
    first.y = 142
    first.line("Abstract", 90, first.y + 10, 11, "hebo")
    first.y += 18
    first.paragraph(ABSTRACT, 90, 415, 9.6)
    top = first.y + 10
    body(first, left, top, ["# 1 Introduction", *INTRODUCTION])
    body(first, right, top, ["# 2 Method", *METHOD, *(f"- {step}" for step in STEPS)])
    first.centre("1", 812, 9)

    second = Sheet(document)
    second.line("Ostermoor Papers 9 (2026)", 54, 36, 8, "heit", GREY)
    body(second, left, 56, ["# 3 Results", *RESULTS])
    chart(second, left, second.y + 8, column)
    body(second, right, 56, ["# 4 Discussion", *DISCUSSION, "# References", *REFERENCES])
    second.centre("2", 812, 9)
    finish(document, path, PAPER_TITLE)


def chart(sheet: Sheet, x: float, top: float, width: float) -> None:
    base, height = top + 150, 130.0
    for tick in range(0, 101, 25):
        y = base - height * tick / 100
        sheet.page.draw_line((x + 26, y), (x + width, y), color=(0.8, 0.8, 0.8), width=0.5)
        sheet.line(str(tick), x + 4, y + 3, 7, color=GREY)
    shares = (("customs", 100), ("market", 81), ("school", 66), ("ferry", 43))
    for index, (name, share) in enumerate(shares):
        bar = x + 38 + index * 49
        fill = (0.16 + index * 0.12, 0.35 + index * 0.1, 0.6)
        sheet.page.draw_rect((bar, base - height * share / 100, bar + 34, base), color=None, fill=fill)
        sheet.line(name, bar, base + 10, 7.5)
    sheet.rule(x + 26, base, x + width, base, 1)
    sheet.y = base + 20
    sheet.paragraph("Figure 1: Share of needed lamps in per cent, by part of the wall.", x, width, 8.6, "heit")


FORM_FIELDS = [
    ["Field", "Entry"],
    ["Name of the vessel", "Morgenrot"],
    ["Home port", "Ostermoor"],
    ["Length over all", "11.40 m"],
    ["Draught", "1.85 m"],
    ["Master", "Greta Lindqvist"],
]
FORM_CHARGES = [
    ["Berth", "Nights", "Rate", "Amount"],
    ["A 14", "3", "18.50", "55.50"],
    ["A 15", "2", "18.50", "37.00"],
    ["C 02", "7", "12.00", "84.00"],
    ["Total", "12", "", "176.50"],
]
FORM_TIDES = [
    ["Day", "High water", "Low water", "Range"],
    ["Monday", "04:12", "10:27", "3.1 m"],
    ["Tuesday", "04:58", "11:15", "3.3 m"],
    ["Wednesday", "05:43", "12:01", "3.4 m"],
    ["Thursday", "06:29", "12:48", "3.2 m"],
]


def form(path: Path) -> None:
    document = pymupdf.open()
    sheet = Sheet(document)
    sheet.line("Harbour Office Ostermoor", 60, 46, 9, "heit", GREY)
    sheet.y = 62
    sheet.heading("Application for a Guest Berth", size=18)
    sheet.paragraph("Please fill in one form for each vessel and hand it to the harbour master before noon.")
    sheet.table(FORM_FIELDS, 60, (170, 250))
    sheet.heading("Charges")
    sheet.table(FORM_CHARGES, 60, (110, 90, 110, 110))
    sheet.heading("Tides of the week")
    for index, row in enumerate(FORM_TIDES):  # no rules at all: columns by position alone
        for column, cell in enumerate(row):
            sheet.line(cell, 64 + column * 115, sheet.y + 11, 9.5, "hebo" if index == 0 else "helv")
        sheet.y += 17
    sheet.y += 14
    for index, (text, ticked) in enumerate((("Shore power wanted", True), ("Water wanted", False))):
        y = sheet.y + index * 20
        sheet.page.draw_rect((62, y, 73, y + 11), color=BLACK, width=0.8)
        if ticked:
            sheet.rule(62, y, 73, y + 11, 1)
            sheet.rule(62, y + 11, 73, y, 1)
        sheet.line(text, 82, y + 9.5, 10)
    sheet.y += 52
    sheet.line("Remarks:", 60, sheet.y + 12, 10)
    field = pymupdf.Widget()
    field.field_name = "remarks"
    field.field_type = pymupdf.PDF_WIDGET_TYPE_TEXT
    field.rect = pymupdf.Rect(120, sheet.y, 480, sheet.y + 18)
    field.field_value = "We arrive after sunset"
    field.text_fontsize = 10
    sheet.page.add_widget(field)
    finish(document, path, "Application for a Guest Berth")


REPORT_TITLE = "Annual Report of the Seed Library"
REPORT_PARAGRAPHS = (
    "The seed library lent more packets this year than in any year before. Readers took home 1,904 packets and brought "
    "back 1,377, which is the best rate of return since the library was founded in the old pump house.",
    "Three things helped. The opening hours were extended into the evening, the drawers were sorted by month of sowing "
    "instead of by name, and a volunteer was present on every Saturday to answer questions.",
    "The winter was mild. Broad beans came up in January, and several readers returned their seeds twice. We have "
    "decided to count such a return as one, because the drawer has room for one packet only.",
)
REPORT_NEXT = (
    "Next year the library wants to lend tools as well. A spade cannot be divided and returned next summer in greater "
    "number, so that the rules of the house will need a new chapter.",
    "We thank all readers who labelled their packets in a legible hand. To the reader who returned a drawer full of "
    "unnamed seeds: they were radishes, and they were very good.",
)
PLANTS = (
    "Broad bean", "Runner bean", "Field pea", "Sugar pea", "Carrot", "Parsnip", "Beetroot", "Radish", "Turnip",
    "Leek", "Onion", "Spinach", "Chard", "Lettuce", "Endive", "Rocket", "Parsley", "Dill", "Coriander", "Fennel",
    "Cabbage", "Kale", "Kohlrabi", "Cauliflower", "Cucumber", "Pumpkin", "Marrow", "Tomato", "Pepper", "Aubergine",
    "Sunflower", "Marigold", "Cornflower", "Poppy", "Borage", "Nasturtium",
)  # fmt: skip
REPORT_HEADER = ["Plant", "Packets lent", "Packets returned", "Share"]


def report_rows() -> Table:
    rows = []
    for index, plant in enumerate(PLANTS):
        lent = 20 + (index * 37) % 61
        back = lent - (index * 13) % 19
        rows.append([plant, str(lent), str(back), f"{100 * back // lent} %"])
    return rows


def report(path: Path) -> None:
    document = pymupdf.open()
    rows = report_rows()

    def sheet() -> Sheet:
        made = Sheet(document)
        made.line("Seed Library, Annual Report", 60, 40, 8, "heit", GREY)
        made.centre(f"Page {document.page_count} of 4", 812, 8.5)
        return made

    page = sheet()
    page.heading(REPORT_TITLE, size=20)
    page.heading("1 The year in brief")
    for text in REPORT_PARAGRAPHS:
        page.paragraph(text, size=11)
    page = sheet()
    page.heading("2 What was lent")
    page.paragraph("Table 1 lists every plant with the packets that were lent and returned.", size=11)
    page.y += 250
    page.line("Table 1: Packets by plant", 60, page.y, 10, "heit")
    page.y += 8
    widths = (160.0, 105.0, 125.0, 85.0)
    fits = int((770 - page.y) // 20) - 1
    page.table([REPORT_HEADER, *rows[:fits]], 60, widths)
    page = sheet()
    page.table([REPORT_HEADER, *rows[fits:]], 60, widths)
    page = sheet()
    page.heading("3 What comes next")
    for text in REPORT_NEXT:
        page.paragraph(text, size=11)
    finish(document, path, REPORT_TITLE)


CHINESE_TITLE = "海港灯塔的历史"
CHINESE_TEXT = (
    "海港的灯塔建于一九零三年,高二十八米。每天傍晚,守塔人沿着石阶走上塔顶,点亮油灯。",
    "后来,油灯换成了电灯,守塔人也搬进了城里。孩子们仍然喜欢到塔下听海浪的声音,老人们坐在长椅上谈论天气。",
    "今年春天,镇上决定把灯塔改成一座小图书馆。第一层放海图和船只的照片,第二层放故事书,最高的一层只放一把椅子和一扇窗。",
)
CHINESE_TABLE = [["楼层", "用途", "面积"], ["一层", "海图与照片", "四十平方米"], ["二层", "故事书", "三十平方米"]]


def chinese(path: Path) -> None:
    document = pymupdf.open()
    page = document.new_page(width=WIDTH, height=HEIGHT)
    page.insert_font(fontname="han", fontbuffer=pymupdf.Font("china-s").buffer)
    page.insert_text((60, 90), CHINESE_TITLE, fontname="han", fontsize=24)
    y = 130.0
    for text in CHINESE_TEXT:
        full = "  " + text.replace(",", "\uff0c")
        for start in range(0, len(full), 38):
            page.insert_text((60, y), full[start : start + 38], fontname="han", fontsize=12.5)
            y += 21
        y += 6
    y += 10
    widths = (90, 170, 150)
    for index, row in enumerate(CHINESE_TABLE):
        x = 60.0
        for width, cell in zip(widths, row, strict=True):
            page.draw_rect((x, y, x + width, y + 26), color=BLACK, width=0.7, fill=PALE if index == 0 else None)
            page.insert_text((x + 8, y + 18), cell, fontname="han", fontsize=12)
            x += width
        y += 26
    document.subset_fonts()
    finish(document, path, CHINESE_TITLE)


# -- scans ------------------------------------------------------------------------------------------------------------


def pixels(document: pymupdf.Document, dpi: int) -> Image.Image:
    pixmap = document[0].get_pixmap(dpi=dpi, colorspace=pymupdf.csGRAY)
    return Image.frombytes("L", (pixmap.width, pixmap.height), pixmap.samples)


def worn(image: Image.Image, seed: int, skew: float) -> Image.Image:
    """As from a scanner: a little askew, grey paper, grain."""
    turned = image.rotate(skew, resample=Image.Resampling.BICUBIC, expand=False, fillcolor=255)
    grain = np.random.default_rng(seed).normal(0.0, 5.0, (turned.height, turned.width))
    light = np.linspace(0, 8, turned.width)[None, :]
    worn_out = np.asarray(turned, dtype=np.float64) * 0.93 + 10 - light + grain
    return Image.fromarray(np.clip(np.rint(worn_out), 0, 255).astype(np.uint8), "L")


def jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=45, optimize=True)
    return data.getvalue()


def letter(title: str, paragraphs: Sequence[str], size: float = 12.5) -> pymupdf.Document:
    document = pymupdf.open()
    sheet = Sheet(document)
    sheet.y = 80
    sheet.heading(title, 70, 20)
    sheet.y += 10
    for text in paragraphs:
        sheet.paragraph(text, 70, 455, size, "tiro", gap=12)
    return document


SCAN_TITLE = "Minutes of the Bell Committee"
SCAN_TEXT = (
    "The committee met on the third of March in the schoolhouse. Seven members were present. The chair opened the "
    "meeting by reading a letter from the foundry, which offers to recast the small bell for nine hundred crowns.",
    "After a long discussion the members agreed that the bell should be recast before the harvest festival. The "
    "treasurer was asked to collect the money from the parishes in equal shares.",
    "The next meeting will be held on the second Tuesday in April. Members who cannot attend are kindly asked to send "
    "a substitute who knows how to ring.",
)
ROTATED_TITLE = "Rules of the Reading Room"
ROTATED_TEXT = (
    "Visitors leave coats and umbrellas at the door. Pencils may be used, pens may not. Maps are unfolded on the large "
    "table only, and folded again by the person who unfolded them.",
    "Books that were taken from a shelf are not put back by the visitor. They stay on the trolley until the evening, "
    "so that we can see what was read.",
)
SIDEWAYS_TITLE = "Opening Hours"
SIDEWAYS_TEXT = (
    "The reading room is open from nine until seventeen on weekdays. It is closed on the first Monday of every month.",
    "In August the room opens one hour earlier because of the heat.",
)
FAX_TITLE = "Order of Rope and Canvas"
FAX_TEXT = (
    "Please deliver two hundred metres of hemp rope and forty metres of grey canvas to the boat shed before the end of "
    "the month.",
    "Payment follows within fourteen days of delivery.",
)
FAX_TITLE_2 = "Delivery Address"
FAX_TEXT_2 = ("Boat shed number five, northern quay. Ring the brass bell twice and wait for the keeper of the shed.",)


def scan(path: Path) -> None:
    document = pymupdf.open()
    page = document.new_page(width=WIDTH, height=HEIGHT)
    page.insert_image(page.rect, stream=jpeg(worn(pixels(letter(SCAN_TITLE, SCAN_TEXT), 150), 3, 0.7)))
    finish(document, path, "")


def rotated(path: Path) -> None:
    """Page 1: fed sideways and marked so (/Rotate), as scanners do. Page 2: sideways, and nothing says so."""
    document = pymupdf.open()
    for title, text, marked in ((ROTATED_TITLE, ROTATED_TEXT, True), (SIDEWAYS_TITLE, SIDEWAYS_TEXT, False)):
        upright = worn(pixels(letter(title, text, 14), 150), 5, -0.4)
        page = document.new_page(width=HEIGHT, height=WIDTH)
        page.insert_image(page.rect, stream=jpeg(upright.transpose(Image.Transpose.ROTATE_90)))
        if marked:
            page.set_rotation(90)
    finish(document, path, "")


def tiff(path: Path) -> None:
    """Two frames of one bit, as fax software stores them."""
    frames = [
        pixels(letter(title, text, 14), 200).point([0] * 150 + [255] * 106).convert("1", dither=Image.Dither.NONE)
        for title, text in ((FAX_TITLE, FAX_TEXT), (FAX_TITLE_2, FAX_TEXT_2))
    ]
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="group4", dpi=(200, 200))


def damaged(path: Path) -> None:
    """Says that it is a PDF and holds no object that could be recovered."""
    noise = np.random.default_rng(13).integers(128, 256, 4096, dtype=np.uint8).tobytes()
    path.write_bytes(b"%PDF-1.7\n" + noise)


# -- what must come out -----------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Path], None]] = {
    "chinese.pdf": chinese,
    "damaged.pdf": damaged,
    "form-tables.pdf": form,
    "paper-two-columns.pdf": paper,
    "photo-scan.tiff": tiff,
    "report-table-across-pages.pdf": report,
    "scan.pdf": scan,
    "scan-rotated.pdf": rotated,
}


def expected() -> dict[str, Any]:
    rows = report_rows()
    return {
        "_": {
            "contains": "phrases of the document's Markdown; compare without case, with every run of white space as one blank",
            "order": "phrases that stand in the Markdown in this order",
            "absent": "what is left out: running headers, footers and page numbers",
            "cells": "text of table cells",
            "wish": "what a reader that notices sideways pages finds too",
        },
        "chinese.pdf": {
            "pages": 1,
            "state": "ok",
            "contains": [CHINESE_TITLE, "高二十八米", "小图书馆", "故事书"],
            "order": [CHINESE_TITLE, "守塔人沿着石阶", "孩子们", "海图与照片"],
            "cells": [cell for row in CHINESE_TABLE for cell in row],
        },
        "damaged.pdf": {"pages": 0, "state": "failed", "error_code": "DAMAGED_DOCUMENT"},
        "form-tables.pdf": {
            "pages": 1,
            "state": "ok",
            "contains": ["Application for a Guest Berth", "Tides of the week", "Shore power wanted", "after sunset"],
            "order": ["Morgenrot", "Charges", "176.50", "Tides of the week", "Wednesday", "Shore power wanted"],
            "cells": [cell for row in [*FORM_FIELDS, *FORM_CHARGES] for cell in row if cell],
            "tables": [[6, 2], [5, 4], [5, 4]],
        },
        "paper-two-columns.pdf": {
            "pages": 2,
            "state": "ok",
            "contains": [PAPER_TITLE, "Of 312 lamps, 87", "seen from the sea", "Figure 1"],
            "order": [
                PAPER_TITLE,
                "Abstract",
                "Introduction",
                "far more than on their age",
                "Method",
                "go on to the next",
                "Results",
                "close their curtains",
                "Discussion",
                "References",
            ],
            "absent": ["Ostermoor Papers 9 (2026)"],
        },
        "photo-scan.tiff": {
            "pages": 2,
            "state": "ok",
            "contains": ["hemp rope", "fourteen days", "northern quay", "brass bell"],
            "order": ["hemp rope", "northern quay"],
        },
        "report-table-across-pages.pdf": {
            "pages": 4,
            "state": "ok",
            "contains": [REPORT_TITLE, "1,904 packets", "What was lent", "they were radishes"],
            "order": [REPORT_TITLE, "pump house", PLANTS[0], PLANTS[-1], "What comes next"],
            "absent": ["Page 2 of 4"],
            "cells": [row[0] for row in rows],
            "tables": [[1 + len(rows), 4]],
        },
        "scan.pdf": {
            "pages": 1,
            "state": "ok",
            "contains": ["Bell Committee", "letter from the foundry", "harvest festival", "knows how to ring"],
            "order": ["Bell Committee", "nine hundred crowns", "equal shares", "second Tuesday in April"],
        },
        "scan-rotated.pdf": {
            "pages": 2,
            "state": "ok",
            "contains": ["Reading Room", "coats and umbrellas", "trolley until the evening"],
            "order": ["Reading Room", "Pencils may be used", "what was read"],
            "wish": ["Opening Hours", "nine until seventeen", "because of the heat"],
        },
    }


def make_all(folder: Path) -> list[Path]:
    """Writes every sample into `folder` and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, maker in MAKERS.items():
        maker(folder / name)
    return [folder / name for name in MAKERS]


def main() -> None:
    here = Path(__file__).resolve().parent
    if len(sys.argv) > 1:
        make_all(Path(sys.argv[1]))
        return
    for path in make_all(here / "documents"):
        print(f"{path.stat().st_size:>9,} {path.relative_to(here)}")
    text = json.dumps(expected(), indent=2, ensure_ascii=False)
    (here / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
