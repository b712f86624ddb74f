"""Pages of HTML from templates: escaped by default, self-contained, under a policy that forbids everything else.

Invariant: a page made here holds one style and one script, both ours and named by their hashes in its policy; it can make no
request, and no text that was put into it can become a script, a style or a link.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pipelines.observe.figures import clock


def page(template: str, css: list[str], js: str, **values: Any) -> str:
    """A page of the folder `page`.

    Args:
        template, css, js: names of files there; the styles are joined.
    """
    style, script = "\n".join(map(_asset, css)), _asset(js)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    return _environment().get_template(template).render(css=Markup(style), js=Markup(script), policy=policy, **values)


def many(count: int, noun: str) -> str:
    """1 page, 2,000 pages."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals["clock"] = clock
    made.filters["classname"] = lambda name: "".join(char if char.isalnum() else "_" for char in str(name))
    return made


@cache
def _asset(name: str) -> str:
    return resources.files("pipelines.observe").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
