"""`python -m jobs.bench NAME`: every published figure, measured again on this machine.

Each bench is a file of `jobs/benches/` whose function gives `Figures`; its options are the function's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.benches.base import Figures, write_json
from jobs.benches.driver import driver
from jobs.benches.engine import engine
from jobs.benches.first_page import first_page
from jobs.benches.layout import layout
from jobs.benches.listing import listing
from jobs.benches.long_answers import long_answers
from jobs.benches.memory import memory
from jobs.benches.overhead import overhead
from jobs.benches.pipeline import pipeline
from jobs.benches.planning import planning
from jobs.benches.precision import precision
from jobs.benches.probing import probing
from jobs.benches.scheduling import scheduling
from jobs.benches.tower import tower
from jobs.common import run_app

BENCHES: tuple[Callable[..., Figures], ...] = (
    overhead, first_page, memory, planning, listing, probing, driver, engine, long_answers, scheduling, precision, tower, layout,
    pipeline,
)  # fmt: skip


def bench_app() -> typer.Typer:
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    files: list[Path] = []

    @app.callback()
    def options(json: Annotated[Path | None, typer.Option(help="also write the figures to this file")] = None) -> None:
        """Measures pagemill on this machine."""
        files.extend([json] if json else [])

    for bench in BENCHES:
        app.command(bench.__name__.replace("_", "-"))(_shown(bench, files))
    return app


def _shown(bench: Callable[..., Figures], files: list[Path]) -> Callable[..., None]:
    """The bench as a command: its table on the terminal, its JSON in the files."""

    @functools.wraps(bench)
    def command(*args: Any, **kwargs: Any) -> None:
        figures = bench(*args, **kwargs)
        print(figures.text(), flush=True)
        for file in files:
            write_json(figures, file)

    return command


if __name__ == "__main__":
    run_app(bench_app())
