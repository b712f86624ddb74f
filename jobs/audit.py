"""`pagemill audit`: is everything there, provably?"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import load
from pipelines.errors import ExitCode
from pipelines.observe.log import printable
from pipelines.secrets import public

if TYPE_CHECKING:
    from pipelines.store.audit import AuditResult


def audit(
    output: Annotated[str, typer.Argument(help="folder or URI of the results")],
    source: Annotated[str | None, typer.Option(help="also hold it against this source's listing")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Re-derive the completeness equation and every part's integrity from OUTPUT alone."""
    from pipelines.source.listing import discover
    from pipelines.store.audit import audit as run

    config = load(conf or [], settings or [])
    listing = None
    if source is not None:
        listing = (public(info.uri) for info in discover(source, config.source.storage_options, Counter(), web=config.source.web))
    result = run(output, listing, config.store.storage_options)
    states = " + ".join(f"{count} {state}" for state, count in result.states.items()) or "0"
    if result.lanes > 1:
        idle = f", of which {', '.join(map(str, result.idle_lanes))} never ran" if result.idle_lanes else ""
        print(f"lanes      {result.lanes}{idle}")
    print(f"sources    {result.sources}" + f", of which {result.unfetched} could not be fetched" * bool(result.unfetched))
    print(f"documents  {result.documents}, of which {result.unopened} could not be opened")
    print(f"pages      {result.pages} = {states} + {result.pending} pending")
    if result.left_out:
        print(f"left out   {result.left_out} pages that no row of a manifest asked for")
    print(f"parts      {result.parts} live, {result.orphans} orphans (harmless)")
    for label, lines in (("PROBLEM", result.problems), ("NOT READ", result.undone), ("history", result.history)):
        for line in lines:
            print(printable(f"{label:10} {line}"))
    print(_verdict(result))
    sys.exit(ExitCode.OK if result.ok else ExitCode.AUDIT_FAILED)


def _verdict(result: AuditResult) -> str:
    """Damage first: a run after it may stand in the way of what a backup has (a lost commit's number is taken)."""
    if result.problems:
        return "DAMAGED: restore from a backup what is named above; what cannot be restored: docs/operations.md, Proof"
    return "NOT complete: run ingest again, then audit" if result.pending_work else "complete and intact"


if __name__ == "__main__":
    guarded(audit)
