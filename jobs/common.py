"""What all jobs share: common options, and errors that end in their exit code.

Invariant: a named error prints one line with its code and what to do, never a traceback; any other is a bug and shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from pipelines.errors import PagemillError

Conf = Annotated[list[str] | None, typer.Option("--conf", help="YAML file over the defaults; may be given more than once")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the files")]

OutputArgument = Annotated[str, typer.Argument(help="folder or URI of the results")]


def guarded(command: Callable[..., None]) -> None:
    """Runs one command as a program."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)


def run_app(app: typer.Typer) -> None:
    try:
        app()
    except PagemillError as error:
        print(f"pagemill: {error.code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
