"""`pagemill show`: what was read of one document, for a person at a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.common import Conf, OutputArgument, Settings, guarded
from pipelines.config import load


def show(
    output: OutputArgument,
    document: Annotated[str, typer.Argument(help="document id or its beginning, or a source's URI or its end")],
    page: Annotated[int | None, typer.Option(min=1, help="this page only, counted from 1")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """A document's Markdown in the terminal."""
    from pipelines.store.reading import Output

    with Output(output, load(conf or [], settings or []).store.storage_options, parts=False) as opened:
        text = opened.markdown(document, None if page is None else page - 1)
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    from pipelines.observe.log import without_controls

    Console().print(Markdown(without_controls(text)))


if __name__ == "__main__":
    guarded(show)
