"""`pagemill reprocess`: chosen pages of an output, read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from jobs.common import OutputArgument, guarded
from jobs.options import JobOptions, RidingCanaries, end
from pipelines.errors import ConfigError
from pipelines.store.choosing import Choice, Preview, read_ids

Where = Annotated[str | None, typer.Option(help='SQL over the columns of pages: "state = \'failed\'", "fingerprint <> current"')]
Blocks = Annotated[
    str | None, typer.Option(help="SQL over the columns of blocks; of their pages exactly these, where only recognition changed")
]
Pages = Annotated[str | None, typer.Option(help="Parquet or CSV file with doc_id, and if wanted page_index, block_index")]


def reprocess(
    output: OutputArgument,
    *,
    where: Where = None,
    blocks: Blocks = None,
    pages: Pages = None,
    dry_run: Annotated[bool, typer.Option(help="count what would be read again, and read nothing")] = False,
    canaries: RidingCanaries = False,
    job: JobOptions,
) -> None:
    """Read chosen pages of OUTPUT again; both readings stay, the new one counts."""
    from pipelines.ingest import preview
    from pipelines.ingest import reprocess as run

    config = job.begin()
    if where is None and blocks is None and pages is None:
        raise ConfigError("nothing is chosen. Try: --where \"state = 'failed'\" --dry-run")
    ids = read_ids(pages, config.source.storage_options) if pages is not None else None
    choice = Choice(where, blocks, ids)
    if dry_run:
        for name, words in lines(preview(output, choice, config)):
            print(f"{name:10} {words}")
        return
    end(run(output, choice, config, inline=job.inline, take_over=job.take_over, lane=job.lane, canaries=canaries))


def lines(found: Preview) -> list[tuple[str, str]]:
    """The preview as a person reads it: a heading and words each."""
    total = sum(found.pages.values())
    shown = [("again", f"{total} pages of {found.documents} documents ({_counted(found.pages)})")]
    if found.blocks:
        whole = f"; {found.whole} pages whole: read by whole pages, or laid out otherwise now" if found.whole else ""
        shown.append(("blocks", f"{found.blocks}{whole}"))
    shown.append(("errors", _counted(found.codes)))
    shown.append(("read with", f"{total - found.other} with the present configuration, {found.other} with another"))
    if found.unopened:
        shown.append(("unopened", f"{_counted(found.unopened)}: all their pages, if they can be opened now"))
    if found.gone:
        shown.append(("left alone", f"{found.gone} documents that no object holds any more"))
    if found.unknown:
        shown.append(("unknown", f"{found.unknown} rows of the file name no page of this output"))
    return shown


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"


if __name__ == "__main__":
    guarded(reprocess)
