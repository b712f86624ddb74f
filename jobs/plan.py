"""`pagemill plan`: what an ingest would do, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from jobs.common import guarded
from jobs.options import ConfigOptions
from pipelines.source.forecast import Forecast


def plan(
    source: Annotated[str, typer.Argument(help="as for ingest")],
    output: Annotated[str, typer.Argument(help="as for ingest; need not exist")],
    *,
    probe: Annotated[bool, typer.Option(help="fetch and open new documents to count their pages")] = False,
    options: ConfigOptions,
) -> None:
    """What is new, changed or done, and how long it may take; writes nothing to OUTPUT."""
    from pipelines.ingest import fingerprints_of
    from pipelines.output import look_at
    from pipelines.source.forecast import forecast

    config = options.config()
    for name, words in lines(forecast(source, look_at(output, config.store), config, fingerprints_of(config), probe)):
        print(f"{name:10} {words}")


def lines(found: Forecast) -> list[tuple[str, str]]:
    """The forecast as a person reads it: a heading and words each."""
    pages = f"{sum(found.pages.values())} done ({_counted(found.pages)}), {found.pending} pending, {found.again} to try again"
    shown = [
        ("listed", f"{_counted(found.listed)}; {found.bytes} bytes, {found.fetch_bytes} of them to fetch"),
        ("skipped", _counted(found.skipped)),
        ("documents", f"{sum(found.documents.values())} done ({_counted(found.documents)})"),
        ("pages", pages),
        ("unopenable", _counted(found.unopenable) + ("" if found.probed or not found.unseen else ", as far as known")),
    ]
    if found.other_fingerprint:
        shown.append(("", f"{found.other_fingerprint} of them read with another configuration: they count as done"))
    if found.probed:
        shown.append(("probed", f"{found.unseen} objects: {found.new_pages} new pages"))
    shown.append(("estimate", _estimate(found)))
    return shown


def _estimate(found: Forecast) -> str:
    pages, seconds = found.to_read(), found.seconds()
    if pages is None:
        return f"none: the page counts of {found.unseen} objects need --probe"
    if not pages:
        return "nothing to read"
    if seconds is None:
        return f"none for {pages} pages: no earlier run measured a rate"
    return f"{seconds / 60:.1f} minutes for {pages} pages at the last run's {found.rate:.2f} pages/s"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"


if __name__ == "__main__":
    guarded(plan)
