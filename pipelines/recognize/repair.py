"""From what a vision-language model said to the blocks of a page.

Invariant: pure; raises for no answer. Every region that was asked about becomes a block with its text, or with the code of
why it has none; a figure is stored, once, in the table that shows it or as a block of its own.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.config import PaddleOcrVlConfig
from pipelines.errors import AnswerEmpty, AnswerGarbled, AnswerTruncated, RegionBlank, RegionUnreadable, TableMalformed
from pipelines.recognize import charts, figures
from pipelines.recognize.base import Answer, Crop, Reading
from pipelines.recognize.delimiters import bracket_math, dollar_math
from pipelines.recognize.markup import table_markup
from pipelines.recognize.otsl import otsl_to_html
from pipelines.recognize.plan import Plan, Planned, make_plan, pictured
from pipelines.recognize.repetition import TABLE_LEAST, TEXT_LEAST, cut_repetition
from pipelines.recognize.spotting import Spotted, spotted
from pipelines.schema import Block, RasterPage, Region

_GARBAGE = re.compile("[\ud800-\udfff\ufffd\x00]")
_CELL_END = re.compile(r"</t[dh]>(?=\s*<t[dh])")
_ROW_END = re.compile(r"</tr>\s*")
_NUMBER = re.compile(r"\s*\d+(?:\.\d+)*")
_MARKUP = re.compile(r"<[^>]*>")


@dataclass(slots=True, frozen=True)
class Repaired:
    """An answer, mended."""

    content: str
    cut: bool = False  # a repetition was cut off
    spotted: Spotted | None = None


def repaired(answer: str | None, label: str, width: int, height: int, strict: bool = False, dollars: bool = True) -> Repaired:
    """
    Args:
        label: official, of the block.
        width, height: of the region in pixels, for places of spotted text.
        dollars: formulas in dollar signs, as the official form has them; else in brackets, as blocks have them.
    """
    said = answer or ""
    text = cut_repetition(said, TABLE_LEAST if label == "table" else TEXT_LEAST, strict)
    cut = text != said
    text = dollar_math(text, label, strict) if dollars or label == "table" else bracket_math(text, label)
    if label == "table":
        return Repaired(otsl_to_html(text, strict) or text, cut)
    if label == "spotting":
        places = spotted(text, width, height)
        return Repaired(places.content, cut, places)
    return Repaired(text, cut)


def finish(
    page: RasterPage,
    regions: Sequence[Region],
    crops: Sequence[Crop],
    answers: Sequence[Answer],
    options: PaddleOcrVlConfig,
    engine: str = "",
    weights: str = "",
) -> Reading:
    """The page's blocks in reading order, and its figures.

    Args:
        regions, options: those that `plan_crops` had.
        crops, answers: one answer a crop, in the order of the crops.
        engine, weights: what the blocks say of who read them.
    """
    height, width = page.pixels.shape[:2]
    plan = make_plan(regions, width, height, options)
    said = {crop.regions[0]: answer for crop, answer in zip(crops, answers, strict=True)}
    page_of = _Finishing(page, regions, plan, said, options, engine, weights)
    return page_of.reading()


@dataclass(slots=True)
class _Finishing:
    page: RasterPage
    regions: Sequence[Region]
    plan: Plan
    said: Mapping[int, Answer]
    options: PaddleOcrVlConfig
    engine: str
    weights: str
    result: Reading = field(default_factory=lambda: Reading([]))
    contents: dict[int, str] = field(default_factory=dict)  # by region
    shown: set[str] = field(default_factory=set)  # figures that a table shows, by path

    def reading(self) -> Reading:
        blocks = [(planned, self._block(planned)) for planned in self.plan.blocks]
        for planned, block in blocks:
            if planned.label == "table" and block.html:
                block.html = self._with_figures(planned, block.html)
        for planned, block in blocks:
            path = figures.image_path(planned.label, planned.box)
            if planned.in_table and (path in self.shown or self.options.strict_parity):
                continue
            if planned.label in pictured(self.options):
                block.image = self._store(planned.box)
            self.result.blocks.append(block)
        if not self.options.strict_parity:
            self.result.blocks += [self._unread(region) for region in self.plan.unread]
        return self.result

    def _block(self, planned: Planned) -> Block:
        region = self.regions[planned.region]
        block = Block(region.label, region.box, "", "none", "", "", native_label=region.native_label or planned.label)
        if planned.ask is None:
            return block
        block.source, block.engine, block.weights = "pixels", self.engine, self.weights
        answer = self.said.get(planned.region)
        if answer is None:
            block.error_code = RegionBlank.code
            return block
        block.finish_reason, block.confidence, block.seconds = answer.finish_reason, answer.confidence, answer.seconds
        block.rung, block.tokens, block.tokens_saved = answer.rung, answer.tokens, answer.tokens_saved
        self._fill(block, planned, answer)
        self.contents[planned.region] = block.content
        return block

    def _fill(self, block: Block, planned: Planned, answer: Answer) -> None:
        box = planned.box
        clean = _GARBAGE.sub("", answer.text)
        size = box[2] - box[0], box[3] - box[1]
        mended = repaired(clean, planned.label, *size, self.options.strict_parity, dollars=False)
        block.content = mended.content
        block.level = title_level(planned.label, block.content)
        if planned.label == "table":
            self._table(block, mended.content)
        elif planned.label == "chart":
            block.html = charts.chart_table(block.content) or None
        if block.content != answer.text:
            block.raw = answer.text
        if mended.cut and answer.finish_reason != "error":
            block.finish_reason = "repetition"
        block.error_code = self._code(block, planned, answer, clean)
        if block.error_code is not None:
            self._flag("block_failed" if answer.error_code is not None else block.error_code.lower())
        if block.finish_reason == "repetition":
            self._flag("repetition_cut")

    def _table(self, block: Block, content: str) -> None:
        if content.lstrip().startswith("<table"):  # of our making, or HTML that the model wrote
            block.html = table_markup(content)
            block.content = plain_table(block.html)

    def _code(self, block: Block, planned: Planned, answer: Answer, clean: str) -> str | None:
        if answer.error_code is not None:
            return answer.error_code
        if answer.finish_reason == "length":
            return AnswerTruncated.code
        if clean != answer.text:
            return AnswerGarbled.code
        if not clean.strip():
            return AnswerEmpty.code
        return TableMalformed.code if planned.label == "table" and block.html is None else None

    def _flag(self, flag: str) -> None:
        if flag not in self.result.flags:
            self.result.flags.append(flag)

    def _with_figures(self, planned: Planned, html: str) -> str:
        assert planned.ask is not None
        painted = self.plan.asks[planned.ask].tokens
        named = figures.named(html)
        self.shown |= {token.figure.path for token in painted if token.text in named}
        inside = {region: entities.escape(content) for region, content in self.contents.items()}
        return figures.resolve(html, painted, lambda figure: self._store(figure.box), inside, strict=False)

    def _store(self, box: tuple[int, int, int, int]) -> str:
        figure = figures.stored(self.page.pixels[box[1] : box[3], box[0] : box[2]])
        if all(known.name != figure.name for known in self.result.figures):
            self.result.figures.append(figure)
        return figure.name

    def _unread(self, index: int) -> Block:
        region = self.regions[index]
        block = Block(region.label, region.box, "", "none", "", "", native_label=region.native_label)
        block.error_code = RegionUnreadable.code
        return block


def title_level(label: str, content: str) -> int | None:
    """Of a title on its own page: 1 for a document's, from 2 on for others, by the dots of their number."""
    if label == "doc_title":
        return 1
    if label != "paragraph_title":
        return None
    number = _NUMBER.match(content)
    return min(6, 2 + (number[0].count(".") if number else 0))


def plain_table(html: str) -> str:
    """A table's text: cells by tabs, rows by line ends."""
    text = _ROW_END.sub("\n", _CELL_END.sub("\t", html))
    return entities.unescape(_MARKUP.sub("", text)).strip("\n")
