"""Blocks of a page as the official pipeline's Markdown, pretty (HTML where Markdown has no word for it) or plain.

Invariant: pure, raises for no content. Content goes into the Markdown as the model wrote it: escaping would not be the
official form. With `strict_parity` to the letter; else blocks without content leave no blank lines and every cell of a table
is styled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from pipelines.assemble.official.page import OfficialBlock, OfficialPage, model_settings
from pipelines.config import PaddleOcrVlConfig
from pipelines.recognize.charts import chart_table

Write = Callable[[OfficialBlock], str]

_CHINESE = "一二三四五六七八九十百千万亿零壹贰叁肆伍陆柒捌玖拾"
_COUNT = r"[1-9][0-9]*"
_NUMBERED = re.compile(
    rf"\s*({_COUNT}(?:\.{_COUNT})*[.、]?|[(（](?:{_COUNT}|[{_CHINESE}]+)[)）]|[{_CHINESE}]+[、.]?|(?:I{{1,3}}|IV|VI{{0,3}}|IX|X)[.\s])"
    r"\s*(.*)$"
)
_TD = re.compile(r"<(t[dh])(?=[\s>])")
_CELL_STYLE = " style='text-align: center; word-wrap: break-word;'"
_TABLE_STYLE = "<table border=1 style='margin: auto; word-wrap: break-word;'>"
_FIRST_WORDS = ("摘要", "abstract")
_FIRST_LINES = ("参考文献", "references")


def page_markdown(page: OfficialPage, options: PaddleOcrVlConfig, pretty: bool | None = None, numbers: bool | None = None) -> str:
    """
    Args:
        pretty: None: as `prettify_markdown` says.
        numbers: whether formulas show their numbers; None: as `show_formula_number` says.
    """
    pretty = options.prettify_markdown if pretty is None else pretty
    numbers = options.show_formula_number if numbers is None else numbers
    parts: list[str] = []
    for index, block in enumerate(page.blocks):
        write = handler(block.label, page, options, pretty)
        if write is None:
            continue
        following = page.blocks[index + 1] if index + 1 < len(page.blocks) else block
        if numbers and block.label in ("display_formula", "formula") and following.label == "formula_number":
            block = replace(block, content=_tagged(block.content, following.content))
        parts.append(write(block))
    if not options.strict_parity:
        return "\n\n".join(part for part in parts if part.strip())
    text = ""
    for part in parts:
        text += "\n\n" + part if text else part
    return text


def handler(label: str, page: OfficialPage, options: PaddleOcrVlConfig, pretty: bool) -> Write | None:
    """What writes blocks of a label; None for those that Markdown leaves out."""
    if label in options.markdown_ignore_labels:
        return None
    settings = model_settings(options, page.layout)

    def picture(read: bool) -> Write:
        return lambda block: _picture(block, page.width, read, pretty, options.strict_parity)

    def centred(block: OfficialBlock) -> str:
        return _centred(block.content) if pretty else block.content

    writers: dict[str, Write] = {
        "paragraph_title": lambda block: _title(block.content, block.title_level),
        "doc_title": lambda block: _one_line(f"# {block.content}"),
        "abstract": lambda block: _headed(block.content, " ", _FIRST_WORDS, "\n"),
        "reference": lambda block: _headed(block.content, "\n", _FIRST_LINES, ""),
        "content": lambda block: block.content.replace("-\n", "  \n").replace("\n", "  \n"),
        "algorithm": lambda block: block.content.strip("\n"),
        "table": lambda block: _table(block.content, pretty, options.strict_parity),
        "chart": picture(settings["use_ocr_for_image_block"]),
        "seal": picture(settings["use_seal_recognition"]) if page.layout else centred,
    }
    if settings["use_chart_recognition"]:
        writers["chart"] = lambda block: chart_table(block.content, options.strict_parity)
    writers |= dict.fromkeys(("image", "header_image", "footer_image"), picture(settings["use_ocr_for_image_block"]))
    writers |= dict.fromkeys(("abstract_title", "reference_title", "content_title"), lambda block: _title(block.content, None))
    writers |= dict.fromkeys(("table_title", "figure_title", "chart_title"), centred)
    writers |= dict.fromkeys(("text", "ocr", "vertical_text", "reference_content", "vision_footnote"), _paragraphs)
    writers |= dict.fromkeys(
        ("formula", "display_formula", "inline_formula", "spotting", "number", "footnote", "header", "footer", "aside_text"),
        lambda block: block.content,
    )
    return writers.get(label)


def _one_line(text: str) -> str:
    return text.replace("-\n", "").replace("\n", " ")


def _paragraphs(block: OfficialBlock) -> str:
    return block.content.replace("\n\n", "\n").replace("\n", "\n\n")


def _title(content: str, level: int | None) -> str:
    """A heading; its level is the given one, else counted by the dots of the title."""
    if level is None:
        found = _NUMBERED.match(content)
        if found:
            content = f"{found.group(1).strip()} {found.group(2)}"
        content = content.rstrip(".")
        level = content.count(".") + 1
    return _one_line(f"#{'#' * level} {content}")


def _headed(content: str, separator: str, words: tuple[str, ...], after: str) -> str:
    """The first word (or line) as a heading, if it is the name of the section."""
    parts = content.split(separator)
    first = next((i for i, part in enumerate(parts) if part.strip()), None)
    if first is not None and parts[first].lower() in words:
        parts[first] = f"## {parts[first]}{after}"
    return separator.join(parts)


def _centred(text: str, one_line: bool = True) -> str:
    return f'<div style="text-align: center;">{_one_line(text) if one_line else text}</div>\n'


def _picture(block: OfficialBlock, page_width: int, read: bool, pretty: bool, strict: bool) -> str:
    if block.image is None:
        return _centred("", not read) if pretty and strict else block.content if read and not strict else ""
    behind = f"\n\n{block.content}\n\n" if read and (strict or block.content) else ""
    if not pretty:
        return f"![]({block.image}){behind}"
    share = int((block.box[2] - block.box[0]) / max(1, page_width) * 100)
    return _centred(f'<img src="{block.image}" alt="Image" width="{share}%" />{behind}', not read)


def _table(content: str, pretty: bool, strict: bool) -> str:
    if not content and not strict:
        return ""
    if not pretty:
        for tag in ("<html>", "</html>", "<body>", "</body>"):
            content = content.replace(tag, "")
        return f"\n\n{content}"
    content = content.replace("<table>", _TABLE_STYLE)
    if not strict:
        return "\n" + _TD.sub(rf"<\1{_CELL_STYLE}", content)
    return "\n" + content.replace("<th>", f"<th{_CELL_STYLE}>").replace("<td>", f"<td{_CELL_STYLE}>")


def _tagged(formula: str, number: str) -> str:
    return f"$${formula.replace('$$', '')} \\tag*{{{number}}}$$"
