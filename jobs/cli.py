"""The `pagemill` command: every job under one name."""

from __future__ import annotations

import typer

from jobs.common import run_app
from jobs.ingest import ingest

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Archives of documents to Parquet and Markdown.",
)
app.command()(ingest)


@app.callback()
def _root() -> None:
    """Keeps `ingest` a subcommand while it is alone."""


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
