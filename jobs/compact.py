"""`pagemill compact`: many small Parquet parts become few large ones."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import load


def compact(
    output: Annotated[str, typer.Argument(help="folder or URI of the results")],
    least_mib: Annotated[int, typer.Option(help="smaller parts are merged into files of this size to twice this size")] = 128,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Merge small parts into large ones; safe while others read and a run writes. What was merged is left for gc."""
    from pipelines.output import lanes_of, open_existing
    from pipelines.store.compact import Compacted, Compactor
    from pipelines.store.ledger import Ledger

    config = load(conf or [], settings or [])
    store = open_existing(output, config.store)
    done = Compacted()
    for lane in lanes_of(store):
        ledger = Ledger(store, lane, merge_every=config.store.merge_every)
        try:
            done += Compactor(store, ledger, least_mib << 20).compact()
        finally:
            ledger.close()
    print(f"merged    {done.parts} parts into {done.files} ({done.size / (1 << 20):.1f} MiB)")
    print(f"left      {done.left} small parts, which do not fill a file yet")
    if done.foreign:
        print(f"skipped   {len(done.foreign)} parts of a newer pagemill: use that one")


if __name__ == "__main__":
    guarded(compact)
