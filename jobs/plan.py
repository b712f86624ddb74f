"""`pagemill plan`: what an ingest would do, without doing it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import load


def plan(
    source: Annotated[str, typer.Argument(help="as for ingest")],
    output: Annotated[str, typer.Argument(help="as for ingest; need not exist")],
    probe: Annotated[bool, typer.Option(help="fetch and open new documents to count their pages")] = False,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """What is new, changed or done, and how long it may take; writes nothing."""
    from pipelines.output import open_store
    from pipelines.source.cache import DocumentCache
    from pipelines.source.changes import Candidate, ChangeDetector
    from pipelines.source.listing import batched, discover
    from pipelines.source.probing import Prober
    from pipelines.store.ledger import Ledger
    from pipelines.store.state import LedgerState

    config = load(conf or [], settings or [])
    ledger = Ledger(open_store(output, config.store))
    ledger.refresh()
    skipped: Counter[str] = Counter()
    pages: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="pagemill-plan-") as scratch:
        state = LedgerState([file.path for file in ledger.files], Path(scratch))
        changes = ChangeDetector(state)
        todo: list[Candidate] = []
        count = 0
        for batch in batched(discover(source, config.source.storage_options, skipped)):
            for candidate in changes.compare(batch):
                count += 1
                if probe:
                    todo.append(candidate)
        if probe:
            cache = DocumentCache(Path(config.source.cache_dir) if config.source.cache_dir else None, config.source.cache_gib)
            prober = Prober(config, cache, changes.opened)
            for found in prober.probe_all(iter(todo)):
                pages["pages" if found.probe else f"cannot be opened: {found.error.code if found.error else ''}"] += (
                    found.probe.page_count if found.probe else 1
                )
            prober.close()
        rate = _last_rate(state)
        state.close()
    print("listed   ", ", ".join(f"{number} {verdict}" for verdict, number in changes.counts.items() if number) or "nothing")
    print("bytes    ", changes.listed_bytes)
    print("skipped  ", ", ".join(f"{number} {reason}" for reason, number in skipped.items()) or "nothing")
    for kind, number in pages.items():
        print(f"probed    {number} {kind}")
    if not count:
        print("nothing to do")
    elif rate and pages["pages"]:
        print(f"estimate  {pages['pages'] / rate / 60:.1f} minutes at the last run's {rate:.2f} pages/s")
    else:
        print("estimate  none: " + ("no earlier run measured a rate" if not rate else "page counts need --probe"))


def _last_rate(state: object) -> float | None:
    rows = state.rows(  # type: ignore[attr-defined]
        "SELECT summary FROM ledger WHERE kind = 'run' ORDER BY number DESC, \"row\" DESC"
    )
    rates = (json.loads(summary).get("pages_per_second") for (summary,) in rows)
    return next((float(rate) for rate in rates if rate), None)


if __name__ == "__main__":
    guarded(plan)
