"""A report of a run that is over, and of any page of any run: from its report.json, the ledger, the parts and the source.

Invariant: it writes nothing to the output. What a run did not live to report is counted from the ledger, and said to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.config import Config
from pipelines.errors import ConfigError, ExitCode, PagemillError
from pipelines.observe.html import render
from pipelines.observe.pages import PageDrawer, shown_pages
from pipelines.observe.report import SCHEMA
from pipelines.observe.sample import Pick
from pipelines.observe.summary import Summary
from pipelines.source.discovery import openers
from pipelines.source.manifest import Secret
from pipelines.store.one_document import find_document, options_of
from pipelines.store.reading import Output

_BUDGET_S = 600.0  # for pictures; who asks for pages by name waits for them
_MOST_PAGES = 200


def recall(
    output: Output, config: Config, run_id: str | None, wanted: Sequence[str], manifest: str | None = None
) -> tuple[str, str]:
    """The page, and the run that it is of.

    Args:
        run_id: None: the newest.
        wanted: pages as DOCUMENT:N or DOCUMENT:N-M, counted from 1; none: those that the run itself chose.
        manifest: whose rows say what opens the documents, for their pictures.

    Raises:
        ConfigError: no such run, document or page.
    """
    run = run_id or _newest(output)
    shown, yaml = _report_of(output, run)
    picks = asked(output, wanted, run_id) if wanted else [Pick.from_dict(entry) for entry in shown.get("sample", [])]
    if not picks:
        picks = _any(output, run, config.observe.report_pages)
    picks, secrets = opened_by(manifest, config, [with_own_options(output, pick) for pick in _moved(output, picks)])
    with PageDrawer(_as_then(config, shown), secrets) as drawer:
        pages = list(shown_pages(picks, output.store, drawer, _BUDGET_S))
    return render(shown, pages, yaml), run


def with_own_options(output: Output, pick: Pick) -> Pick:
    """The page, with the options that its document has for itself."""
    return replace(pick, options=options_of(output.con, pick.doc_id))


def opened_by(manifest: str | None, config: Config, picks: Sequence[Pick]) -> tuple[list[Pick], tuple[Secret, ...]]:
    """The pages, each with the number of what opens its document, and the table of those.

    Raises:
        BadManifest, SourceUnreachable, ConfigError
    """
    found = openers(manifest, config, {pick.uri for pick in picks})
    numbers = {uri: number for number, uri in enumerate(found, 1)}
    return [replace(pick, secret=numbers.get(pick.uri, 0)) for pick in picks], tuple(found.values())


def _as_then(config: Config, shown: Mapping[str, Any]) -> Config:
    """Pages are drawn by the library that drew them for the run: another one's may differ by a pixel."""
    engine = shown["engines"].get("raster")
    if engine not in ("pymupdf", "pypdfium2"):
        return config
    return config.model_copy(update={"raster": config.raster.model_copy(update={"engine": engine})})


def _newest(output: Output) -> str:
    row = output.con.execute("SELECT run_id FROM ledger WHERE kind = 'run' ORDER BY run_id DESC LIMIT 1").fetchone()
    if row is None:
        raise ConfigError(f"{output.store.root}: no run has begun here")
    return str(row[0])


def _report_of(output: Output, run: str) -> tuple[dict[str, Any], str]:
    """What report.json says, and the configuration; counted from the ledger where the run did not live to write them."""
    output.check_run(run)
    try:
        shown = json.loads(output.store.get(f"runs/{run}/report.json"))
        yaml = output.store.get(f"runs/{run}/config.yaml").decode()
    except FileNotFoundError:
        return _counted(output, run), ""
    if str(shown.get("schema", "0")).split(".")[0] != SCHEMA.split(".")[0]:
        raise ConfigError(f"runs/{run}/report.json has schema {shown.get('schema')}; this pagemill reads {SCHEMA}")
    return shown, yaml


def _counted(output: Output, run: str) -> dict[str, Any]:
    con = output.con
    said, at = con.execute(
        """SELECT arg_min(summary, number), epoch(min("at")) FROM ledger
                              WHERE kind = 'run' AND run_id = ?""",
        [run],
    ).fetchall()[0]
    summary = Summary(run, json.loads(said).get("source", ""), output.store.root, "", {}, started=at)
    summary.message = "The run ended before it could report: counted from the ledger."
    summary.status = "interrupted"
    states = "SELECT state, count(*) FROM span_page WHERE run_id = ? GROUP BY 1"
    summary.pages.update(dict(con.execute(states, [run]).fetchall()))
    documents = "SELECT state, count(*) FROM ledger WHERE kind = 'document' AND run_id = ? GROUP BY 1"
    summary.documents.update(dict(con.execute(documents, [run]).fetchall()))
    commits = con.execute(
        """SELECT epoch("at") AS moment, sum(len(pages)) FROM ledger
                             WHERE kind = 'span' AND run_id = ? GROUP BY 1 ORDER BY 1""",
        [run],
    ).fetchall()
    done = 0
    for moment, pages in commits:
        done += int(pages)
        summary.timeline.append((round(moment - at, 2), done))
    summary.ended = at + (summary.timeline[-1][0] if summary.timeline else 0.0)
    printed = con.execute("SELECT any_value(fingerprint) FROM ledger WHERE kind = 'revision' AND run_id = ?", [run]).fetchone()
    summary.fingerprint = (printed and printed[0]) or ""
    return {
        "schema": SCHEMA, **summary.as_dict(), "exit_code": int(ExitCode.INTERRUPTED),
        "exit_meaning": ExitCode.INTERRUPTED.name, "nothing_to_do": False, "sample": [],
    }  # fmt: skip


def asked(output: Output, wanted: Sequence[str], run: str | None) -> list[Pick]:
    """Pages as DOCUMENT:N or DOCUMENT:N-M, where their live rows are, or those of one run.

    Raises:
        ConfigError: there is no such page.
    """
    picks: dict[tuple[str, int], Pick] = {}
    for text in wanted:
        document, first, last = _parse(text)
        doc_id = find_document(output.con, document)
        uri = _uri_of(output, doc_id)
        rows = _where(output, doc_id, first, last, run)
        if not rows:
            of_run = f" in run {run}" if run else ""
            raise ConfigError(f"{text}: no such page was read{of_run}")
        for page, part, attempt, state in rows:
            picks[doc_id, page] = Pick(0.0, doc_id, page, uri, part, attempt, state, "asked")
    if len(picks) > _MOST_PAGES:
        raise ConfigError(f"{len(picks)} pages are too many for one report: at most {_MOST_PAGES}")
    return list(picks.values())


def _parse(text: str) -> tuple[str, int, int]:
    document, colon, pages = text.rpartition(":")
    first, dash, last = pages.partition("-")
    if not (colon and document and first.isdigit() and (not dash or last.isdigit()) and int(first) >= 1):
        raise ConfigError(f"--page {text}: expected DOCUMENT:N or DOCUMENT:N-M, pages counted from 1, e.g. --page scan.pdf:3")
    return document, int(first) - 1, int(last or first) - 1


def _uri_of(output: Output, doc_id: str) -> str:
    rows = output.con.execute(
        "SELECT uri FROM source_latest WHERE doc_id = ? ORDER BY presence = 'present' DESC, number DESC LIMIT 1", [doc_id]
    ).fetchall()
    return str(rows[0][0]) if rows else ""


def _where(output: Output, doc_id: str, first: int, last: int, run: str | None) -> list[tuple[int, str, str, str]]:
    """page, part, attempt, state: the live reading, or that of one run."""
    source = "live_page" if run is None else "(SELECT * FROM span_page WHERE run_id = $4)"
    order = "" if run is None else "QUALIFY row_number() OVER (PARTITION BY page_index ORDER BY position DESC) = 1"
    values = [doc_id, first, last] + ([run] if run else [])
    rows = output.con.execute(
        f"""SELECT page_index, part, attempt, state FROM {source} WHERE doc_id = $1 AND page_index BETWEEN $2 AND $3
            {order} ORDER BY 1""", values
    ).fetchall()  # fmt: skip
    return [(int(page), str(part), str(attempt), str(state)) for page, part, attempt, state in rows]


def _any(output: Output, run: str, most: int) -> list[Pick]:
    """A run that chose no pages: some of those that it committed, in the order of a hash."""
    rows = output.con.execute(
        """SELECT p.doc_id, p.page_index, coalesce(any_value(u.uri), ''), arg_max(p.part, p.position),
                  arg_max(p.attempt, p.position), arg_max(p.state, p.position)
           FROM span_page p LEFT JOIN source_latest u ON u.doc_id = p.doc_id WHERE p.run_id = ?
           GROUP BY 1, 2 ORDER BY md5(p.doc_id || p.page_index) LIMIT ?""", [run, most]
    ).fetchall()  # fmt: skip
    return [
        Pick(0.0, doc_id, page, uri, part, attempt, state, "random") for doc_id, page, uri, part, attempt, state in sorted(rows)
    ]


def _moved(output: Output, picks: Sequence[Pick]) -> list[Pick]:
    """The same pages where their rows are now: compaction may have moved them."""
    moved = dict(output.con.execute("SELECT old_part, new_part FROM part_moved").fetchall())
    found = []
    for pick in picks:
        part, hops = pick.part, 0
        while part in moved:
            part, hops = moved[part], hops + 1
            if hops > len(moved):
                raise PagemillError(f"{pick.part} was moved in a circle")
        found.append(replace(pick, part=part))
    return found
