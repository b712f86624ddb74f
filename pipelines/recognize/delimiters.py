r"""LaTeX delimiters of a model's answer brought to the dollar form that Markdown readers know.

Invariant: pure; an answer without a pair of `\(...\)` or `\[...\]` comes back as it is. The official code deletes every
dollar sign of an answer that has such a pair, prices too; by default those stay, escaped.
"""

from __future__ import annotations

import re

_STEPS = (("\\(", " $ "), ("\\)", " $"), ("\\[\\[", "\\["), ("\\]\\]", "\\]"), ("\\[", " $$ "), ("\\]", " $$ "))
_DOLLAR = re.compile(r"(?<!\\)\$")


def dollar_math(text: str, label: str = "", strict: bool = False) -> str:
    if not (("\\(" in text and "\\)" in text) or ("\\[" in text and "\\]" in text)):
        return text
    text = text.replace("$", "") if strict else _DOLLAR.sub(r"\\$", text)
    for old, new in _STEPS:
        text = text.replace(old, new)
    if label == "formula_number":
        return text.replace("$", "") if strict else _DOLLAR.sub("", text)
    return text
