r"""LaTeX in a model's answer: which delimiters stand around it.

Invariant: pure; nothing but delimiters changes. In a block's content formulas stand in `\(...\)` and `\[...\]`, which no
other text is taken for; the official form has dollar signs. The official code deletes every dollar sign of an answer that
has such a pair, prices too; by default those stay, escaped where Markdown would take them for a formula.
"""

from __future__ import annotations

import re

_STEPS = (("\\(", " $ "), ("\\)", " $"), ("\\[\\[", "\\["), ("\\]\\]", "\\]"), ("\\[", " $$ "), ("\\]", " $$ "))
_DOLLAR = re.compile(r"(?<!\\)\$")
_DISPLAY = re.compile(r"\A\$\$(.*)\$\$\Z", re.S)
_INLINE = re.compile(r"\A\$([^$]*)\$\Z", re.S)


def has_math(text: str) -> bool:
    return ("\\(" in text and "\\)" in text) or ("\\[" in text and "\\]" in text)


def dollar_math(text: str, label: str = "", strict: bool = False) -> str:
    """The official form; an answer without a pair of delimiters comes back as it is.

    Args:
        label: official, of the block. The number of a formula is no formula; a table is HTML, where nothing needs escaping.
    """
    if not has_math(text):
        return text
    if strict:
        text = text.replace("$", "")
    elif label != "table":
        text = _DOLLAR.sub(r"\\$", text)
    for old, new in _STEPS:
        text = text.replace(old, new)
    if label == "formula_number":
        return text.replace("$", "") if strict else _DOLLAR.sub("", text)
    return text


def bracket_math(text: str, label: str) -> str:
    r"""Our form: what is a formula as a whole stands in `\[...\]`, or `\(...\)` if it is part of a line."""
    text = text.replace("\\[\\[", "\\[").replace("\\]\\]", "\\]")
    if label == "formula_number":
        for mark in ("\\(", "\\)", "\\[", "\\]"):
            text = text.replace(mark, "")
        return text.strip()
    if "formula" not in label or not text.strip() or has_math(text):
        return text
    bare = text.strip()
    bare = (_DISPLAY.match(bare) or _INLINE.match(bare) or [bare, bare])[1].strip()
    return f"\\({bare}\\)" if label == "inline_formula" else f"\\[{bare}\\]"
