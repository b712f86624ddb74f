"""`pagemill tables`: the tables of an output alone."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jobs.common import Conf, OutputArgument, Settings, Unpublished, guarded, say_held_back
from pipelines.config import load


def tables(
    output: OutputArgument,
    target: Annotated[str, typer.Argument(help="folder or URI that the files go to")],
    form: Annotated[
        Literal["csv", "xlsx", "json"], typer.Option("--as", help="a file a table, a workbook or JSON Lines a document")
    ] = "csv",
    document: Annotated[list[str] | None, typer.Option(help="id or name; more than once; default: all")] = None,
    unpublished: Unpublished = False,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """The tables alone; one that goes on over pages is one."""
    from pipelines.export.documents import documents
    from pipelines.export.tables import COLUMNS, WRITERS
    from pipelines.export.tables import tables as tables_of
    from pipelines.output import open_target
    from pipelines.store.publishing import held_back
    from pipelines.store.reading import Output

    config = load(conf or [], settings or [])
    writer = WRITERS[form](open_target(target, config.store))
    count = documents_with = 0
    with Output(output, config.store.storage_options, published=not unpublished) as opened:
        for found in documents(opened, document or [], COLUMNS):
            some = list(tables_of(found))
            writer.write(found, some)
            count += len(some)
            documents_with += bool(some)
        held = held_back(opened.con, document or [])
    writer.close()
    print(f"{count} tables of {documents_with} documents as {form} in {target}")
    say_held_back(held)


if __name__ == "__main__":
    guarded(tables)
