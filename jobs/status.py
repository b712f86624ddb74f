"""`pagemill status`: what is in an output, for a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jobs.common import Conf, OutputArgument, Settings, guarded
from pipelines.config import Config, load
from pipelines.errors import PagemillError

# documents that could not be opened, and objects that there are and that could not be had, by what the ledger says of each last
_UNOPENED = """SELECT error_code, count(*) FROM document_latest WHERE page_count IS NULL AND error_code IS NOT NULL
               GROUP BY 1 ORDER BY 2 DESC, 1"""
_NOT_READ = """SELECT error_code, count(*) FROM source_latest WHERE presence = 'present' AND error_code IS NOT NULL
               GROUP BY 1 ORDER BY 2 DESC, 1"""


def status(output: OutputArgument, conf: Conf = None, settings: Settings = None) -> None:
    """What OUTPUT holds: documents and pages by state, what was read with which configuration, the last run."""
    from pipelines.store.counts import count_pages
    from pipelines.store.publishing import find_unpublished, held_back
    from pipelines.store.reading import Output

    config = load(conf or [], settings or [])
    with Output(output, config.store.storage_options, parts=False) as opened:
        con = opened.con
        if len(opened.ledgers) > 1:
            begun = sum(bool(ledger.files) for ledger in opened.ledgers)
            print("lanes    ", f"{len(opened.ledgers)}, of which {begun} have begun")
        documents = "SELECT state, count(*) FROM document_latest GROUP BY 1 ORDER BY 1"
        print("documents", _named(con.execute(documents).fetchall()))
        pages = count_pages(con)
        print("pages    ", _named(pages.states))
        print("errors   ", _named(pages.errors))
        print("unopened ", _named(con.execute(_UNOPENED).fetchall()))
        print("not read ", _named(con.execute(_NOT_READ).fetchall()))
        print("pending  ", f"{pages.pending} pages")
        read_with = [f"{count} {name}" + f" {options}" * bool(options) for name, options, count in pages.prints]
        print("read with", ", ".join(read_with) or "none")
        print("other    ", _other(pages.prints, config))
        if find_unpublished(con) and (held := held_back(con)).documents:
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


def _named(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts) or "none"


if __name__ == "__main__":
    guarded(status)
