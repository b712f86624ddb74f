"""The `pagemill` command: every job under one name."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from jobs.audit import audit
from jobs.canary import canary
from jobs.capsule import capsule
from jobs.common import expanded, run_app
from jobs.compact import compact
from jobs.config import app as config_app
from jobs.diff import diff
from jobs.doctor import doctor
from jobs.export import export
from jobs.export_sft import export_sft
from jobs.finetune import finetune
from jobs.gc import gc
from jobs.ingest import ingest
from jobs.nightly import nightly
from jobs.plan import plan
from jobs.publish import publish
from jobs.replay import replay
from jobs.report import report
from jobs.reprocess import reprocess
from jobs.show import show
from jobs.status import status
from jobs.submit import CONTEXT, submit
from jobs.tables import tables
from jobs.tune import tune
from jobs.verify_model import verify_model

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Archives of documents to Parquet and Markdown, with nothing lost.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"pagemill {metadata.version('pagemill')}")
        raise typer.Exit


@app.callback()
def top(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """What stands before a command's name."""


reading = (ingest, nightly, reprocess, canary, publish)
looking = (plan, audit, status, show, report, diff, capsule, replay)
for command in (*reading, *looking, export, tables, compact, gc, doctor, tune, finetune):
    app.command()(expanded(command))
app.command(context_settings=CONTEXT)(submit)
app.command("export-sft")(export_sft)
app.command("verify-model")(verify_model)

app.add_typer(config_app, name="config")


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
