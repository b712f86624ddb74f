"""`pagemill export-sft`: pages that were read, and reviewed, as training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, OutputArgument, Settings, guarded
from pipelines.config import load


def export_sft(
    output: OutputArgument,
    folder: Annotated[Path, typer.Argument(help="new folder: train.jsonl in ERNIEKit's SFT format, and its crops")],
    where: Annotated[str, typer.Option(help="SQL over the columns of pages, e.g. \"doc_id IN (FROM 'reviewed.csv')\"")],
    corrections: Annotated[
        Path | None, typer.Option(help="JSONL of {doc_id, page_index, block_index, text}: what a reviewer wrote instead")
    ] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Write the blocks of chosen pages of OUTPUT as crops with answers, to train on."""
    from pipelines.store.reading import Output
    from training.export import export, read_corrections

    config = load(conf or [], settings or [])
    corrected = read_corrections(corrections)
    with Output(output, config.store.storage_options) as opened:
        written = export(opened, where, folder, config, corrected)
    kinds = ", ".join(f"{count} {task}" for task, count in written.samples.most_common())
    print(f"{folder / 'train.jsonl'}: {written.total} samples ({kinds or 'none'})")
    for reason, count in written.skipped.most_common():
        print(f"  left out: {count} {reason}")


if __name__ == "__main__":
    guarded(export_sft)
