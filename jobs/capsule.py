"""`pagemill capsule`: one page with all that it takes to read it again, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, Manifest, OutputArgument, Settings, guarded, writing
from pipelines.config import load
from pipelines.observe.log import printable


def capsule(
    output: OutputArgument,
    page: Annotated[str, typer.Argument(help="DOCUMENT:N, page counted from 1, document as in `show`")],
    to: Annotated[Path | None, typer.Option(help="file to write; default: capsule-DOCUMENT-PAGE.zip in this folder")] = None,
    run: Annotated[str | None, typer.Option(help="as this run read it; default: what is live")] = None,
    block: Annotated[int | None, typer.Option(min=0, help="also the picture of this block")] = None,
    most_mib: Annotated[int, typer.Option(min=0, help="larger documents are left out, the page's picture stays")] = 200,
    manifest: Manifest = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Picture, question, options, versions, error and document of one page, to be read again elsewhere: `pagemill replay`."""
    from pipelines.observe.capsule import make_capsule
    from pipelines.store.reading import Output

    config = load(conf or [], settings or [])
    with Output(output, config.store.storage_options, parts=False) as opened:
        made = make_capsule(opened, config, page, run, block, most_mib, manifest)
    target = to or Path(f"capsule-{made.row['doc_id'][:12]}-{int(made.row['page_index']) + 1}.zip")
    with writing(target):
        made.write(target)
    for note in made.about["notes"]:
        print(printable(f"note: {note}"))
    held = [name for name, data in (("document", made.document), ("page", made.page), ("crop", made.crop)) if data is not None]
    print(f"{made.row['state']}; {', '.join(held) or 'no document and no picture'}; {target.stat().st_size} bytes")
    print(target)


if __name__ == "__main__":
    guarded(capsule)
