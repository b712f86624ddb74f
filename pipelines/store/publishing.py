"""Which runs are published, and which run's canaries are the baseline: both from the ledger's `run` records.

Invariant: a run is unpublished while some record of it says `"published": false` and none says `true`; saying `true` is final,
needs no claim, and does not depend on the order of lanes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from pipelines.errors import ConfigError
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.records import record

_UNPUBLISHED_RUNS = """
CREATE OR REPLACE TABLE unpublished_run AS
SELECT run_id FROM (SELECT run_id, json_extract_string(summary, '$.published') AS published FROM lane_record_whole
                    WHERE kind = 'run')
GROUP BY run_id HAVING bool_or(published = 'false') AND NOT coalesce(bool_or(published = 'true'), false);
"""

# revisions that an unpublished run read pages of or completed, and later ones that rest on them: whose document was assembled
# with pages that no published revision has read since; documents that have nothing else
_UNPUBLISHED = """
CREATE OR REPLACE TABLE unpublished AS
SELECT DISTINCT l.lane, l.doc_id, l.revision FROM lane_record_whole l
SEMI JOIN unpublished_run r ON r.run_id = l.run_id WHERE l.kind IN ('span', 'document');

-- of these the ones with a page that nothing published has read since
CREATE OR REPLACE TABLE unpublished_unread AS
WITH opened AS (SELECT r.lane, r.doc_id, r.revision, r.pages, u.doc_id IS NOT NULL AS held, d.doc_id IS NOT NULL AS complete
                FROM lane_record_whole r SEMI JOIN unpublished o ON o.lane = r.lane AND o.doc_id = r.doc_id
                LEFT JOIN unpublished u ON u.lane = r.lane AND u.doc_id = r.doc_id AND u.revision = r.revision
                LEFT JOIN (SELECT DISTINCT lane, doc_id, revision FROM lane_record_whole WHERE kind = 'document') d
                       ON d.lane = r.lane AND d.doc_id = r.doc_id AND d.revision = r.revision
                WHERE r.kind = 'revision'),
     page AS (SELECT lane, doc_id, revision, held, complete, unnest(pages) AS page_index FROM opened)
SELECT DISTINCT h.lane, h.doc_id, h.revision FROM page h
ANTI JOIN page v ON v.lane = h.lane AND v.doc_id = h.doc_id AND v.page_index = h.page_index
     AND v.revision > h.revision AND v.complete AND NOT v.held
WHERE h.held;

INSERT INTO unpublished
SELECT DISTINCT o.lane, o.doc_id, o.revision FROM lane_record_whole o
JOIN unpublished_unread h ON h.lane = o.lane AND h.doc_id = o.doc_id AND o.revision > h.revision
ANTI JOIN unpublished u ON u.lane = o.lane AND u.doc_id = o.doc_id AND u.revision = o.revision
WHERE o.kind = 'revision';

CREATE OR REPLACE TABLE unpublished_document AS
SELECT DISTINCT u.doc_id FROM unpublished u
ANTI JOIN (SELECT d.doc_id FROM lane_record_whole d
           ANTI JOIN unpublished x ON x.lane = d.lane AND x.doc_id = d.doc_id AND x.revision = d.revision
           WHERE d.kind = 'document') p ON p.doc_id = u.doc_id;
"""

# what a reader of everything sees, and one of what is published does not: each document with a URI that it has now, and with the
# runs whose publication would show it
_HELD_BACK = """
CREATE OR REPLACE VIEW held_back AS
WITH entry AS (SELECT l.* FROM lane_record_whole l SEMI JOIN unpublished u ON u.doc_id = l.doc_id
               WHERE l.kind IN ('revision', 'span', 'document')),
     place AS (SELECT doc_id, coalesce(min(lane) FILTER (kind = 'document'), min(lane)) AS lane FROM entry
               WHERE kind IN ('revision', 'document') GROUP BY doc_id),
     seen AS (SELECT e.doc_id, e.lane, coalesce(max(e.revision) FILTER (e.kind = 'document'), 1) AS revision
              FROM entry e JOIN place p ON p.doc_id = e.doc_id AND p.lane = e.lane GROUP BY e.doc_id, e.lane),
     held AS (SELECT s.* FROM seen s
              SEMI JOIN unpublished u ON u.lane = s.lane AND u.doc_id = s.doc_id AND u.revision = s.revision),
     named AS (SELECT uri, arg_max_null(doc_id, number * 1000000 + "row") AS doc_id FROM lane_record_whole
               WHERE kind = 'source' GROUP BY uri)
SELECT DISTINCT h.doc_id, n.uri, e.run_id FROM held h JOIN named n ON n.doc_id = h.doc_id
JOIN entry e ON e.lane = h.lane AND e.doc_id = h.doc_id SEMI JOIN unpublished_run r ON r.run_id = e.run_id
LEFT JOIN unpublished_unread x ON x.lane = e.lane AND x.doc_id = e.doc_id AND x.revision = e.revision
WHERE e.kind IN ('span', 'document') AND (e.revision = h.revision OR (x.doc_id IS NOT NULL AND e.revision < h.revision))
"""

_PUBLISHED = """
-- a URI whose newest document is held back names the one before
CREATE OR REPLACE VIEW lane_record AS
SELECT l.* FROM lane_record_whole l
ANTI JOIN unpublished u ON u.lane = l.lane AND u.doc_id = l.doc_id AND u.revision = l.revision
ANTI JOIN unpublished_document d ON d.doc_id = l.doc_id AND l.kind = 'source';
"""

_EVERYTHING = "CREATE OR REPLACE VIEW lane_record AS SELECT * FROM lane_record_whole;"
_NOTHING_HELD_BACK = """
CREATE OR REPLACE VIEW held_back AS SELECT NULL::VARCHAR AS doc_id, NULL::VARCHAR AS uri, NULL::VARCHAR AS run_id WHERE false;
"""


@dataclass(slots=True, frozen=True)
class HeldBack:
    """Documents that are held back, or a newer reading of them."""

    documents: int
    runs: tuple[str, ...]  # the newest first

    def words(self) -> str:
        """What to do about it."""
        runs = ", ".join(self.runs[:5]) + ", ..." * (len(self.runs) > 5)
        noun = f"run {runs}, which is" if len(self.runs) == 1 else f"runs {runs}, which are"
        return f"of {noun} not published; --unpublished shows it, pagemill publish OUTPUT RUN lets it through"


def show_everything(con: duckdb.DuckDBPyConnection) -> None:
    """A view `lane_record` of all of `lane_record_whole`."""
    con.execute(_EVERYTHING + _NOTHING_HELD_BACK)


def find_unpublished(con: duckdb.DuckDBPyConnection) -> bool:
    """The view that `held_back` asks, and whether there is an unpublished run; then the tables of what such runs read, too."""
    con.execute(_UNPUBLISHED_RUNS)
    ((runs,),) = con.execute("SELECT count(*) FROM unpublished_run").fetchall()
    con.execute(_UNPUBLISHED + _HELD_BACK if runs else _NOTHING_HELD_BACK)  # most outputs: no pass over all their pages
    return bool(runs)


def hold_back_unpublished(con: duckdb.DuckDBPyConnection) -> None:
    """A view `lane_record` of `lane_record_whole` without what unpublished runs read."""
    con.execute(_PUBLISHED if find_unpublished(con) else _EVERYTHING)


def held_back(con: duckdb.DuckDBPyConnection, names: Sequence[str] = ()) -> HeldBack:
    """What is held back from who reads through this connection; nothing where he sees everything.

    Args:
        names: ids of documents or their beginnings, URIs or their ends; none: all documents.
    """
    named = "list_bool_or(list_transform($1, lambda name: starts_with(doc_id, name) OR ends_with(uri, name)))"
    rows = con.execute(f"SELECT doc_id, run_id FROM held_back WHERE len($1) = 0 OR {named}", [list(names)]).fetchall()
    return HeldBack(len({doc_id for doc_id, _ in rows}), tuple(sorted({run_id for _, run_id in rows}, reverse=True)))


def baseline_of(files: Iterable[Path]) -> dict[str, str]:
    """doc_id of each canary -> the run whose reading of it counts."""
    newest: tuple[int, int] = (0, 0)
    found: dict[str, str] = {}
    for number, row, summary in _run_records(files):
        canary = json.loads(summary).get("canary") or {}
        if canary.get("baseline") and (number, row) > newest:
            newest, found = (number, row), dict(canary["baseline"])
    return found


def publish(store: ObjectStore, ledgers: Sequence[Ledger], run_id: str, as_baseline: bool = False) -> dict[str, Any]:
    """Brings a run's revisions to those who read what is published; the run's summary as it now is.

    Args:
        ledgers: of all lanes; the run's own gets the record.
        as_baseline: from now on the canaries are to say what they said in this run.

    Raises:
        ConfigError: no such run, or it has no canaries.
    """
    for ledger in ledgers:
        ledger.refresh()
        if records := _run_records(ledger.paths, run_id):
            break
    else:
        raise ConfigError(f"no run {run_id} in {store.root}. Try: pagemill canary {store.root}")
    summary: dict[str, Any] = json.loads(max(records)[2])
    summary |= {"published": True, "published_at": datetime.now(UTC).isoformat(timespec="seconds")}
    if as_baseline:
        try:
            pages = json.loads(store.get(f"runs/{run_id}/canary.json"))["pages"]
        except FileNotFoundError:
            raise ConfigError(f"run {run_id} had no canaries: it cannot be a baseline") from None
        mine = {page["doc_id"]: run_id for page in pages}
        summary["canary"] = (summary.get("canary") or {}) | {"baseline": baseline_of(ledger.paths) | mine}
    ledger.amend([record("run", run_id=run_id, summary=json.dumps(summary))])
    return summary


def _run_records(files: Iterable[Path], run_id: str | None = None) -> list[tuple[int, int, str]]:
    """(number, row, summary) of the records of kind `run`."""
    paths = [str(path) for path in files]
    if not paths:
        return []
    with duckdb.connect(config={"temp_directory": ""}) as con:  # few rows: nothing to spill
        found: list[tuple[int, int, str]] = con.execute(
            """SELECT number, "row", summary FROM read_parquet($files, union_by_name = true)
               WHERE kind = 'run' AND ($run IS NULL OR run_id = $run)""",
            {"files": paths, "run": run_id},
        ).fetchall()
    return found
