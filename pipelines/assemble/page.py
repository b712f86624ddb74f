"""Stage `assemble`: blocks of a page become its Markdown.

Invariant: a function of the page alone, never of its span; text of a document cannot become Markdown or HTML of ours: every
character that would is escaped. Pixels are dropped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pipelines.config import AssembleConfig
from pipelines.schema import FURNITURE, Block, SpanWork

_INLINE = re.compile(r"([\\`*_\[\]<>|~$])")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)  # four columns of it would make a line code
_LINE_START = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[-+](?=\s|$)|=+\s*$|-{3,}\s*$|(\d{1,9})([.)])(?=\s|$))")
_ENTITY = re.compile(r"&(?=#?\w{1,32};)")
_BULLET = re.compile("^\\s*(?:[\u2022\u25cf\u25aa\u25e6\u2023\u00b7*\u2013-])\\s+")
_FORMULA = re.compile(r"\\\((.{1,4000}?)\\\)|\\\[(.{1,4000}?)\\\]", re.S)  # bounded: many that never end cost no minutes
_LESS, _MORE = re.compile(r" ?< ?"), re.compile(r" ?> ?")
_BARE_DOLLAR = re.compile(r"(?<!\\)\$")
_NUMBER = re.compile(r"^\s*(\d{1,9})([.)])\s+(?=\S)")
_BOX = re.compile(r"\[[ xX]\]\s")  # a task in GitHub's Markdown
_UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class Assemble:
    """Verb `assemble`."""

    def __init__(self, config: AssembleConfig) -> None:
        self._furniture = config.furniture

    def assemble(self, work: SpanWork) -> SpanWork:
        for page in work.pages:
            page.raster = None
            for block in page.blocks:
                block.content = storable(block.content)
                block.html = storable(block.html) if block.html is not None else None
            shown = [block for block in page.blocks if self._furniture or block.label not in FURNITURE]
            page.markdown = "\n\n".join(filter(None, map(block_markdown, shown)))
        return work


def storable(text: str) -> str:
    """Without what UTF-8 or Parquet readers refuse: control characters and lone surrogates."""
    return _UNSTORABLE.sub("", text)


def block_markdown(block: Block) -> str:
    """One block as Markdown, without blank lines around it."""
    if block.image is not None:
        return f"![{block.label}]({block.image})"
    if block.html:
        return block.html
    text = with_formulas(block.content) if block.source == "pixels" else escape(block.content)
    if block.label == "title" and text:
        return f"{'#' * (block.level or 2)} {' '.join(text.split())}"
    if block.label == "list":
        return "\n".join(_items(block.content.splitlines()))
    if block.label == "code":
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.content)), default=0))
        return f"{fence}\n{block.content}\n{fence}"
    return _INDENT.sub("", text)


def with_formulas(text: str) -> str:
    r"""Text as `escape` has it, with what stands in `\(...\)` and `\[...\]` as formulas between dollar signs."""
    parts: list[str] = []
    end = 0
    for found in _FORMULA.finditer(text):
        parts.append(_escaped(text[end : found.start()]))
        parts.append(_formula(found[1] or found[2], "$" if found[1] is not None else "$$"))
        end = found.end()
    return "".join([*parts, escape(text[end:])])


def _formula(latex: str, mark: str) -> str:
    """LaTeX on one line; it cannot become HTML or a link, nor end before its end."""
    latex = latex.replace("](", "] (")
    latex = _LESS.sub(r" \\lt ", _MORE.sub(r" \\gt ", " ".join(latex.split())))
    latex = _BARE_DOLLAR.sub(r"\\$", latex).replace("`", "'").strip()
    return f"{mark}{latex}{mark}" if latex else ""


def _escaped(text: str) -> str:
    """What comes before a formula keeps the end of its last line."""
    return escape(text) + ("\n" if text.endswith("\n") else "")


def _items(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a list as its items. A number stays where Markdown counts the same: at the start of a run of numbers, and
    where it follows the one before; elsewhere it is text of the item."""
    before: int | None = None
    for line in filter(None, (line.strip() for line in lines)):
        number = _NUMBER.match(line)
        counted = number is not None and (before is None or int(number[1]) == before + 1)
        if number is not None and counted:
            yield f"{number[1]}{number[2]} {escape(line[number.end() :])}"
        else:
            text = escape(_BULLET.sub("", line))
            yield "- " + (f"\\{text}" if _BOX.match(text) else text)
        before = int(number[1]) if number is not None and counted else None


def escape(text: str) -> str:
    """Text that reads the same when Markdown is rendered: no markup, no HTML, no entity of the document's takes effect."""
    return "\n".join(_escape_line(line) for line in text.splitlines())


def _escape_line(line: str) -> str:
    line = _ENTITY.sub("&amp;", _INLINE.sub(r"\\\1", line)).replace("\\<", "&lt;").replace("\\>", "&gt;")
    found = _LINE_START.match(line)
    if found is None:
        return line
    lead, mark = found.group(1), found.group(2)
    rest = line[found.end() :]
    return f"{lead}{found.group(3)}\\{found.group(4)}{rest}" if found.group(3) else f"{lead}\\{mark}{rest}"
