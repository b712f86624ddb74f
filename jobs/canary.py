"""`pagemill canary`: what the canaries said, run by run; and how they are recorded anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from jobs.common import OutputArgument, guarded
from jobs.options import JobOptions


def canary(
    output: OutputArgument,
    *,
    record: Annotated[bool, typer.Option(help="read them now with this configuration, as the new baseline")] = False,
    job: JobOptions,
) -> None:
    """Show what the known pages that ride along with each night said, or --record them anew."""
    from pipelines.store.reading import Output

    config = job.begin()
    if record:
        from pipelines.ingest import record_canaries

        ended = record_canaries(output, config, inline=job.inline, take_over=job.take_over, lane=job.lane)
        if ended.summary.canary is None:
            print(f"not recorded: {ended.summary.message or ended.summary.status}")
            sys.exit(ended.exit_code)
    with Output(output, config.store.storage_options, parts=False) as opened:
        rows = opened.con.execute(
            """SELECT run_id, summary FROM ledger WHERE kind = 'run' AND json_exists(summary, '$.canary.pages')
               QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY number DESC, "row" DESC) = 1 ORDER BY run_id"""
        ).fetchall()
    for run_id, summary in rows[-30:]:
        for line in lines(run_id, json.loads(summary)):
            print(line)
    if not rows:
        print("no canaries have been read here")


def lines(run_id: str, summary: Mapping[str, Any]) -> list[str]:
    """A run's canaries as a person reads them."""
    found = summary["canary"]
    state = "published" if summary.get("published") else "NOT PUBLISHED"
    if run_id in found["baseline"].values():
        state += ", baseline"
    if not found["pages"]:
        return [f"{run_id}  {state}"]
    tokens, crops = (f"{was:g} -> {now:g}" for was, now in (found["tokens"], found["crops"]))
    said = f"{found['pages']} pages, text {found['similarity']:.3f}, tokens a page {tokens}, crops a page {crops}"
    return [f"{run_id}  {state}: {said}", *(f"    {words}" for words in found["drift"])]


if __name__ == "__main__":
    guarded(canary)
