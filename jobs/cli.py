"""The `pagemill` command: every job under one name."""

from __future__ import annotations

import typer

from jobs.audit import audit
from jobs.common import Conf, Settings, run_app
from jobs.doctor import doctor
from jobs.ingest import ingest
from jobs.plan import plan
from jobs.status import show, status
from pipelines.config import load

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Archives of documents to Parquet and Markdown, with nothing lost.",
)
for command in (ingest, plan, audit, status, show, doctor):
    app.command()(command)

config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@config_app.callback()
def _config() -> None:
    """Keeps `show` a subcommand while it is alone."""


@config_app.command("show")
def config_show(conf: Conf = None, settings: Settings = None) -> None:
    """The configuration as a run would see it, secrets left out."""
    print(load(conf or [], settings or []).as_yaml(), end="")


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
