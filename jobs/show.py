"""`pagemill show`: what was read of one document, for a person at a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.common import Conf, OutputArgument, Settings, Unpublished, guarded, say_held_back
from pipelines.config import load


def show(
    output: OutputArgument,
    document: Annotated[str, typer.Argument(help="document id or its beginning, or a source's URI or its end")],
    page: Annotated[int | None, typer.Option(min=1, help="this page only, counted from 1")] = None,
    unpublished: Unpublished = False,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """A document's Markdown in the terminal."""
    from pipelines.store.one_document import newer_held_back
    from pipelines.store.reading import Output

    options = load(conf or [], settings or []).store.storage_options
    with Output(output, options, parts=False, published=not unpublished) as opened:
        text = opened.markdown(document, None if page is None else page - 1)
        say_held_back(newer_held_back(opened.con, document))
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    from pipelines.observe.log import without_controls

    Console().print(Markdown(without_controls(text)))


if __name__ == "__main__":
    guarded(show)
