"""Stage `assemble`: blocks of a page become its Markdown.

Invariant: a function of the page alone, never of its span; text of a document cannot become Markdown or HTML of ours: every
character that would is escaped. Pixels are dropped here.
"""

from __future__ import annotations

import re

from pipelines.config import AssembleConfig
from pipelines.schema import FURNITURE, Block, SpanWork

_INLINE = re.compile(r"([\\`*_\[\]<>|~$])")
_LINE_START = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[-+](?=\s|$)|=+\s*$|-{3,}\s*$|(\d{1,9})([.)])(?=\s|$))")
_ENTITY = re.compile(r"&(?=#?\w{1,32};)")
_BULLET = re.compile("^\\s*(?:[\u2022\u25cf\u25aa\u25e6\u2023\u00b7*\u2013-])\\s+")
_UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class Assemble:
    """Verb `assemble`."""

    def __init__(self, config: AssembleConfig) -> None:
        self._furniture = config.furniture

    def assemble(self, work: SpanWork) -> SpanWork:
        for page in work.pages:
            page.raster, page.regions = None, None
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
    text = escape(block.content)
    if block.label == "title" and text:
        return f"{'#' * (block.level or 2)} {' '.join(text.split())}"
    if block.label == "list":
        return "\n".join(f"- {escape(_BULLET.sub('', line))}" for line in block.content.splitlines() if line.strip())
    if block.label == "code":
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.content)), default=0))
        return f"{fence}\n{block.content}\n{fence}"
    return text


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
