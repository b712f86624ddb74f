"""`pagemill config show`: the configuration as a run would see it."""

from __future__ import annotations

import typer

from jobs.common import Conf, Settings, run_app
from pipelines.config import load

app = typer.Typer(help="The configuration.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _config() -> None:
    """Keeps `show` a subcommand while it is alone."""


@app.command("show")
def show(conf: Conf = None, settings: Settings = None) -> None:
    """The configuration as a run would see it, secrets left out."""
    print(load(conf or [], settings or []).as_yaml(), end="")


if __name__ == "__main__":
    run_app(app)
