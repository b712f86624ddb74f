"""`pagemill export-sft`: pages that were read, and reviewed, as training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, Manifest, OutputArgument, Settings, Unpublished, guarded, say_held_back
from pipelines.config import load
from pipelines.errors import ConfigError


def export_sft(
    output: OutputArgument,
    folder: Annotated[Path, typer.Argument(help="new folder: train.jsonl in ERNIEKit's SFT format, and its crops")],
    where: Annotated[str | None, typer.Option(help="SQL over the columns of pages, e.g. \"state = 'ok'\"")] = None,
    pages: Annotated[
        str | None, typer.Option(help="Parquet or CSV file with doc_id, and if wanted page_index, block_index: what was reviewed")
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="JSONL of {doc_id, page_index, block_index, text}: what a reviewer wrote instead")
    ] = None,
    unpublished: Unpublished = False,
    manifest: Manifest = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Write the blocks of chosen pages of OUTPUT as crops with answers, to train on."""
    from pipelines.source.discovery import openers
    from pipelines.store.choosing import Choice, read_ids
    from pipelines.store.publishing import held_back
    from pipelines.store.reading import Output
    from training.export import export, read_corrections

    config = load(conf or [], settings or [])
    if where is None and pages is None:
        raise ConfigError("nothing is chosen. Try: --pages reviewed.csv")
    choice = Choice(where, ids=read_ids(pages, config.source.storage_options) if pages is not None else None)
    corrected, found_openers = read_corrections(corrections), openers(manifest, config)
    with Output(output, config.store.storage_options, published=not unpublished) as opened:
        written = export(opened, choice, folder, config, corrected, found_openers)
        held = held_back(opened.con)
    kinds = ", ".join(f"{count} {task}" for task, count in written.samples.most_common())
    print(f"{folder / 'train.jsonl'}: {written.total} samples ({kinds or 'none'})")
    for reason, count in written.skipped.most_common():
        print(f"  left out: {count} {reason}")
    say_held_back(held)


if __name__ == "__main__":
    guarded(export_sft)
