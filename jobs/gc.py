"""`pagemill gc`: delete what no ledger record names any more."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import load

_SECONDS_AN_HOUR = 3600.0


def gc(
    output: Annotated[str, typer.Argument(help="folder or URI of the results")],
    dry_run: Annotated[bool, typer.Option(help="say what would be deleted, delete nothing")] = False,
    keep_revisions: Annotated[
        int | None, typer.Option(min=1, help="readings of a document that stay; default: all that were ever committed")
    ] = None,
    older_than_h: Annotated[float, typer.Option(min=0, help="hours by the store's clock; readers may be so slow")] = 24.0,
    take_over: Annotated[bool, typer.Option(help="take the output from a driver that is certainly dead")] = False,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Delete orphan and compacted parts, Markdown, images, plans and uploads that are a day old; never while a run is alive."""
    from pipelines.output import lanes_of, new_run_id, open_existing
    from pipelines.store.gaps import refuse_gaps
    from pipelines.store.garbage import Collector
    from pipelines.store.ledger import Ledger

    config = load(conf or [], settings or [])
    store = open_existing(output, config.store)
    ledgers = [Ledger(store, lane, merge_every=config.store.merge_every) for lane in lanes_of(store)]
    collector = Collector(store, ledgers, older_than_h * _SECONDS_AN_HOUR, keep_revisions)
    with ExitStack() as stack:
        for ledger in ledgers:
            stack.callback(ledger.close)
        for ledger in ledgers:
            ledger.refresh()
        refuse_gaps(store, ledgers)
        if dry_run:
            garbage = collector.find()
            sizes: Counter[str] = Counter()
            for entry in garbage:
                sizes[entry.kind] += entry.size
            _print("would delete", Counter(entry.kind for entry in garbage), sizes)
            return
        run_id = new_run_id()
        for ledger in ledgers:
            ledger.claim(run_id, config.claim.stale_after_s, config.claim.beat_s, take_over)
            stack.callback(ledger.release)
        done = collector.collect(collector.find())
        _print("deleted", done.count, done.size)
        if done.touched:
            print(f"left      {done.touched} objects that were stored anew meanwhile")


def _print(verb: str, count: Counter[str], size: Counter[str]) -> None:
    for kind, number in sorted(count.items()):
        print(f"{verb}  {number} x {kind}, {size[kind] / (1 << 20):.1f} MiB")
    if not count:
        print(f"{verb}  nothing")


if __name__ == "__main__":
    guarded(gc)
