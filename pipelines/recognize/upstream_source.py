"""Whether code of vLLM's that ours stands for is what it was compared with: a digest of its source.

Invariant: comments, docstrings and annotations do not count; anything else does.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterable
from typing import Any


def source_digest(things: Iterable[Any]) -> str:
    """Of the source of these classes and functions, 16 hexadecimal digits. Python versions may differ in it."""
    text = "\n".join(_bare(inspect.getsource(thing)) for thing in things)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bare(source: str) -> str:
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
