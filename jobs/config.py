"""`pagemill config show`: the configuration as a run would see it."""

from __future__ import annotations

import typer

from jobs.common import expanded, run_app
from jobs.options import ConfigOptions

app = typer.Typer(help="The configuration.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _config() -> None:
    """Keeps `show` a subcommand while it is alone."""


def show(options: ConfigOptions) -> None:
    """The configuration as a run would see it, secrets left out."""
    print(options.config().as_yaml(), end="")


app.command("show")(expanded(show))


if __name__ == "__main__":
    run_app(app)
