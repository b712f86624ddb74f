"""`pagemill status`: what is in an output, for a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jobs.common import Conf, OutputArgument, Settings, guarded
from pipelines.config import Config, load
from pipelines.errors import PagemillError


def status(output: OutputArgument, conf: Conf = None, settings: Settings = None) -> None:
    """What OUTPUT holds: documents and pages by state, what was read with which configuration, the last run."""
    from pipelines.store.publishing import find_unpublished, held_back
    from pipelines.store.reading import Output

    config = load(conf or [], settings or [])
    with Output(output, config.store.storage_options, parts=False) as opened:
        con = opened.con
        if len(opened.ledgers) > 1:
            begun = sum(bool(ledger.files) for ledger in opened.ledgers)
            print("lanes    ", f"{len(opened.ledgers)}, of which {begun} have begun")
        print("documents", *_counts(con, "SELECT state, count(*) FROM document_latest GROUP BY 1 ORDER BY 1"))
        print("pages    ", *_counts(con, "SELECT state, count(*) FROM live_page GROUP BY 1 ORDER BY 1"))
        print("errors   ", *_counts(con, "SELECT code, count(*) FROM live_page WHERE code <> '' GROUP BY 1 ORDER BY 2 DESC"))
        pending = """SELECT 'pages', coalesce(sum(len(d.pages)), 0)::BIGINT - (SELECT count(*) FROM revision_page p
                     ANTI JOIN document_all c ON c.doc_id = p.doc_id AND c.revision = p.revision)
                     FROM revision_opened d ANTI JOIN document_all c ON c.doc_id = d.doc_id AND c.revision = d.revision"""
        print("pending  ", *_counts(con, pending))
        by_print = """SELECT coalesce(p.fingerprint, r.fingerprint), coalesce(r.options, ''), count(*) FROM live_page p
                      JOIN revision_opened r ON r.doc_id = p.doc_id AND r.revision = p.revision GROUP BY 1, 2 ORDER BY 3 DESC"""
        prints = con.execute(by_print).fetchall()
        print("read with", *[f"{count} {name}" + f" {options}" * bool(options) for name, options, count in prints] or ["none"])
        print("other    ", _other(prints, config))
        find_unpublished(con)
        if (held := held_back(con)).documents:
            print("held back", f"{held.documents} documents or newer readings of them: {held.words()}")
        runs = "SELECT run_id, summary FROM ledger WHERE kind = 'run' ORDER BY run_id DESC, number DESC, \"row\" DESC LIMIT 1"
        for run_id, summary in con.execute(runs).fetchall():
            print("last run ", run_id, json.loads(summary).get("status"))


def _other(prints: Sequence[tuple[str, str, int]], config: Config) -> str:
    """How much was read with another configuration than the one given."""
    from pipelines.ingest import fingerprints_of

    try:
        current = fingerprints_of(config)
        other = sum(count for name, options, count in prints if name != current(options)[0])
    except PagemillError as error:  # an engine that is not on this machine
        return f"unknown: {error.code}: {error}"
    hint = '; they count as done: pagemill reprocess OUTPUT --where "fingerprint <> current"'
    return f"{other} pages, the present configuration is {current('')[0]}" + hint * bool(other)


def _counts(con: object, sql: str) -> list[str]:
    rows = con.execute(sql).fetchall()  # type: ignore[attr-defined]
    return [f"{count} {name}" for name, count in rows] or ["none"]


if __name__ == "__main__":
    guarded(status)
