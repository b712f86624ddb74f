"""Which text layers are trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.recognize.textlayer import join_lines, trust, words_by_region
from pipelines.schema import Box, RasterPage, Region, Word
from tests.builders import drawn_pdf, text_at

SENTENCE = ["The", "steady", "ledger", "inspected", "eight", "hundred", "units", "in", "October", "contrary", "to", "plans"]


def page(words: list[str], hidden: list[str] = []) -> RasterPage:  # noqa: B006
    def made(texts: list[str]) -> tuple[Word, ...]:
        return tuple(Word(text, Box(10 * n, 10, 10 * n + 9, 20), 0, 10) for n, text in enumerate(texts))

    return RasterPage(np.full((100, 800, 3), 255, np.uint8), 72, 800, 100, made(words), made(hidden))


def test_plain_text_is_trusted_in_many_scripts() -> None:
    assert trust(page(SENTENCE)).trusted
    assert trust(page(["每一页都有唯一的状态", "成功", "空白", "系统记录每一次提交因此中断的任务可以继续执行" * 2])).trusted
    assert trust(page(["Все", "люди", "рождаются", "свободными", "в", "своем", "достоинстве", "и", "правах"])).trusted
    assert trust(page(["يولد", "جميع", "الناس", "أحرارا", "متساوين", "في", "الكرامة", "والحقوق", "وقد", "وهبوا", "عقلا"])).trusted
    assert trust(page(["কি", "থী", "টু", "নৈ", "ণ্ড", "স্ত্রী"] * 12)).trusted  # marks of vowels are no letters to Python
    assert trust(page(["12.50", "3"])).trusted


def test_none_hidden_and_garbled_layers_are_not() -> None:
    assert not trust(page([])).trusted
    assert not trust(page([], SENTENCE)).trusted
    assert not trust(page(SENTENCE[:2], SENTENCE * 3)).trusted
    assert not trust(page(["\ufffd\ufffd\ufffdabc", "\ue001\ue002"])).trusted
    assert not trust(
        page(["".join(chr(ord(c) + 5) if c not in "yz" else c for c in word.lower()) for word in SENTENCE] * 3)
    ).trusted
    assert not trust(page(["!!##", "((%%", "//&&--", "++==", "**::", ";;,,", "<<>>", "~~^^"] * 4)).trusted


def test_a_stamp_on_a_scan_is_not_the_text_of_its_page() -> None:
    stamped = page(SENTENCE)
    scanned = np.full((1000, 800, 3), 250, np.uint8)
    scanned[100:900:14, 60:740] = 30  # what lines of print are to such a measure
    assert not trust(replace(stamped, pixels=scanned, height_pt=1000)).trusted
    assert trust(replace(stamped, pixels=np.full((1000, 800, 3), 250, np.uint8), height_pt=1000)).trusted
    ruled = np.full((1000, 800, 3), 250, np.uint8)
    ruled[500:502, 60:740] = 30
    assert trust(replace(stamped, pixels=ruled, height_pt=1000)).trusted
    assert trust(replace(page(SENTENCE * 8), pixels=scanned, height_pt=1000)).trusted


def test_a_word_in_two_regions_is_read_once() -> None:
    regions = [Region("text", Box(0, 0, 800, 100), 1), Region("title", Box(0, 0, 45, 100), 1)]
    outer, inner = words_by_region(regions, page(SENTENCE))
    assert [word.text for word in inner] == SENTENCE[:5]
    assert [word.text for word in outer] == SENTENCE[5:]


def test_lines_of_a_paragraph() -> None:
    assert join_lines(["a hyphen-", "ated word", "and more"]) == "a hyphenated word and more"
    assert join_lines(["a revised tur\u2010", "bine"]) == "a revised turbine"
    assert join_lines(["Smith-", "Jones"]) == "Smith- Jones"
    assert join_lines(["每一页都有", "唯一的状态"]) == "每一页都有唯一的状态"


def test_letters_that_are_drawn_twice_in_one_place_are_read_once(tmp_path: Path) -> None:
    """What a page does to look bold; the same letters elsewhere, or side by side, stay."""
    twice = [text_at(20, 150, "Kruger illegal"), text_at(20, 150, "Kruger illegal"), text_at(20, 100, "Kruger illegal", 4)]
    path = tmp_path / "bold.pdf"
    path.write_bytes(drawn_pdf(["\n".join(twice)]))
    with IsolatedRasterizer("pymupdf", 60, 1024) as rasterizer:
        page = rasterizer.render(str(path), [], 0, 72, 25)
    assert [word.text for word in page.words] == ["Kruger", "illegal"] * 2
