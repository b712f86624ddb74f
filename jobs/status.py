"""`pagemill status` and `pagemill show`: what is in an output, for a person at a terminal."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import load
from pipelines.errors import ConfigError

OutputArgument = Annotated[str, typer.Argument(help="folder or URI of the results")]


def status(output: OutputArgument, conf: Conf = None, settings: Settings = None) -> None:
    """What OUTPUT holds: documents and pages by state, what was read with which configuration, the last run."""
    from pipelines.store.reading import Output

    with Output(output, load(conf or [], settings or []).store.storage_options, parts=False) as opened:
        con = opened.con
        print("documents", *_counts(con, "SELECT state, count(*) FROM document_latest GROUP BY 1 ORDER BY 1"))
        print("pages    ", *_counts(con, "SELECT state, count(*) FROM live_page GROUP BY 1 ORDER BY 1"))
        print("errors   ", *_counts(con, "SELECT code, count(*) FROM live_page WHERE code <> '' GROUP BY 1 ORDER BY 2 DESC"))
        by_print = """SELECT r.fingerprint, count(*) FROM live_page p JOIN revision_opened r
                      ON r.doc_id = p.doc_id AND r.revision = p.revision GROUP BY 1 ORDER BY 2 DESC"""
        print("read with", *_counts(con, by_print))
        runs = "SELECT run_id, summary FROM ledger WHERE kind = 'run' ORDER BY number DESC, \"row\" DESC LIMIT 1"
        for run_id, summary in con.execute(runs).fetchall():
            print("last run ", run_id, json.loads(summary).get("status"))


def show(
    output: OutputArgument,
    document: Annotated[str, typer.Argument(help="document id or its beginning, or a source's URI or its end")],
    page: Annotated[int | None, typer.Option(help="this page only, counted from 1")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """A document's Markdown in the terminal."""
    from rich.console import Console
    from rich.markdown import Markdown

    from pipelines.store.reading import Output

    with Output(output, load(conf or [], settings or []).store.storage_options) as opened:
        found = opened.con.execute(
            "SELECT DISTINCT doc_id FROM source_latest WHERE starts_with(doc_id, $1) OR ends_with(uri, $1)", [document]
        ).fetchall()
        if len(found) != 1:
            raise ConfigError(f"{document}: {len(found)} documents match; give more of its id or name")
        doc_id = found[0][0]
        where, values = ("AND page_index = ?", [doc_id, page - 1]) if page else ("", [doc_id])
        rows = opened.con.execute(
            f"SELECT page_index, state, error_code, markdown FROM pages WHERE doc_id = ? {where} ORDER BY 1", values
        ).fetchall()
    if not rows:
        raise ConfigError(f"{document}: no such page is read")
    text = "\n\n".join(
        markdown if state != "failed" else f"*page {index + 1} was not read: {code}*" for index, state, code, markdown in rows
    )
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(text)


def _counts(con: object, sql: str) -> list[str]:
    rows = con.execute(sql).fetchall()  # type: ignore[attr-defined]
    return [f"{count} {name}" for name, count in rows] or ["none"]


if __name__ == "__main__":
    guarded(status)
