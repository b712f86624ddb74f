"""A document's text as HTML that cannot do anything: Markdown with HTML off, tables through an allow-list of tags.

Formulas become MathML, which browsers draw without a script.

Invariant: what comes out holds no attribute but the few named here, no link, no image, no script, no style, no comment,
whatever went in; text is never lost silently: what is cut is counted, a formula that cannot be set is shown as its LaTeX.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape, unescape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

from pipelines.assemble.page import block_markdown
from pipelines.schema import Block, Box

_MOST = 20_000  # characters of one block that are shown; a page of prose has 3,000
_TABLE_TAGS = {"table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption", "br", "sub", "sup", "b", "i", "em", "strong", "p"}
_LONGEST_FORMULA = 2000  # characters of LaTeX; 3,000 take 0.1 s
_IN_A_CELL = re.compile(r"\\\(([^<>]+?)\\\)")  # a formula in the text of a table's cell
_MATH_TAGS = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "msup", "msub", "msubsup", "mfrac", "msqrt", "mroot", "mover"),
    *("munder", "munderover", "mtable", "mtr", "mtd", "mphantom", "menclose"),
}
_TEXT_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "pre", "code", "em", "strong", "s", "blockquote"),
    *_TABLE_TAGS,
    *_MATH_TAGS,
}
_ATTRIBUTES = {
    "td": {"colspan", "rowspan"}, "th": {"colspan", "rowspan"}, "ol": {"start"}, "math": {"display"}, "mo": {"stretchy"},
    "mi": {"mathvariant"}, "mfrac": {"linethickness"},
}  # fmt: skip


def rendered_block(row: dict[str, Any]) -> Markup:
    """A block of a `PAGES` row as a reader of its Markdown sees it."""
    content, html = row["content"] or "", row["html"]
    if html:
        shown, left = html[: 10 * _MOST], len(html) - 10 * _MOST
        body = clean(_IN_A_CELL.sub(_formula_in_a_cell, shown), _TABLE_TAGS | _MATH_TAGS)
    else:
        shown, left = content[:_MOST], len(content) - _MOST
        body = clean(_markdown().render(block_markdown(_block(row, shown))), _TEXT_TAGS)
    if row["image"] and content:
        body = Markup("<p class='words'>In it: {}</p>").format(" ".join(shown.split()))  # its Markdown is the picture
    more = Markup("<p class='cut'>and {} more characters</p>").format(left) if left > 0 else Markup()
    return body + more


def clean(html: str, tags: set[str] | None = None) -> Markup:
    """HTML with nothing left but these tags and the attributes named above."""
    return Markup(nh3.clean(html, tags=tags or _TEXT_TAGS, attributes=_ATTRIBUTES, link_rel=None, strip_comments=True))


def _block(row: dict[str, Any], content: str) -> Block:
    return Block(row["label"], Box(0, 0, 0, 0), content, row["source"] or "", row["engine"] or "", "", level=row["level"])


def _formula_in_a_cell(found: re.Match[str]) -> str:
    return _formula(unescape(found[1]), {"display_mode": False})


def _formula(latex: str, options: dict[str, Any]) -> str:
    from latex2mathml.converter import convert

    if len(latex) <= _LONGEST_FORMULA:
        try:
            return str(convert(latex, display="block" if options["display_mode"] else "inline"))
        except Exception:  # what a model wrote need not be LaTeX; it is shown as it is
            pass
    return f"<code>{escape(latex)}</code>"


@cache
def _markdown() -> MarkdownIt:
    renderer = MarkdownIt("commonmark", {"html": False, "linkify": False})
    dollarmath_plugin(renderer, allow_labels=False, double_inline=True, renderer=_formula)
    return renderer.enable("table").disable(["link", "image", "autolink", "html_block", "html_inline", "reference"])
