"""`pagemill publish`: brings what a run read to those who read what is published."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.common import Conf, OutputArgument, Settings, guarded
from pipelines.config import load


def publish(
    output: OutputArgument,
    run: Annotated[str, typer.Argument(help="a run's id, as the report and `pagemill canary` name it")],
    as_baseline: Annotated[bool, typer.Option(help="from now on the canaries are to say what they said in this run")] = False,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Publish what RUN read although its canaries drifted; it needs no claim, and a run may be under way meanwhile."""
    from pipelines.output import lanes_of, open_existing
    from pipelines.store.ledger import Ledger
    from pipelines.store.publishing import publish as run_publish

    config = load(conf or [], settings or [])
    store = open_existing(output, config.store)
    ledgers = [Ledger(store, lane, merge_every=config.store.merge_every) for lane in lanes_of(store)]
    try:
        summary = run_publish(store, ledgers, run, as_baseline)
    finally:
        for ledger in ledgers:
            ledger.close()
    print(f"published  {run}" + (", whose canaries are the baseline now" if as_baseline else ""))
    if summary.get("status") == "running":
        print("note       it has not ended, or was killed: what it reads later is published too")


if __name__ == "__main__":
    guarded(publish)
