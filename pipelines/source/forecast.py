"""What a run would do, without doing it: the dry run behind `pagemill plan`.

Invariant: nothing is written to OUTPUT. A count is a count; the only estimate, the time, comes from the rate that an
earlier run measured and is absent when there was none, or while page counts are unknown.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config import Config
from pipelines.options import Prints
from pipelines.output import lanes_of
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate, ChangeDetector, Verdict
from pipelines.source.listing import batched, discover
from pipelines.source.probing import Prober
from pipelines.store.choosing import add_option_prints
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.state import LedgerState

_KNOWN = (Verdict.OPEN, Verdict.RETRY_PAGES, Verdict.PARTIAL)  # of these the ledger knows the pages


@dataclass(slots=True)
class Forecast:
    """What a listing and the ledger say together. Pages are those of listed documents."""

    listed: Counter[str] = field(default_factory=Counter)  # objects by verdict: new, changed, done ...
    bytes: int = 0  # of all listed objects
    fetch_bytes: int = 0  # of those that would be fetched
    skipped: Counter[str] = field(default_factory=Counter)  # droppings, by reason
    documents: Counter[str] = field(default_factory=Counter)  # complete ones, by state
    pages: Counter[str] = field(default_factory=Counter)  # live ones, by state
    other_fingerprint: int = 0  # of them, read with another configuration than the present one: they count as done
    pending: int = 0  # pages of unfinished documents that are not read
    again: int = 0  # pages that failed transiently and would be tried again
    unopenable: Counter[str] = field(default_factory=Counter)  # objects by error code, as the ledger knows and probing finds
    unseen: int = 0  # objects of which nothing is known without fetching them
    probed: bool = False
    new_pages: int = 0  # found by probing
    rate: float | None = None  # pages a second of the last run that read any

    def to_read(self) -> int | None:
        """Pages that a run would read, or None while some are unknown."""
        return self.pending + self.again + self.new_pages if self.probed or not self.unseen else None

    def seconds(self) -> float | None:
        pages = self.to_read()
        return pages / self.rate if pages and self.rate else None


def forecast(source: str, store: ObjectStore, config: Config, prints: Prints, probe: bool) -> Forecast:
    """
    Args:
        probe: whether to fetch and open what is new, to count its pages.

    Raises:
        SourceUnreachable, ConfigError
    """
    found = Forecast(probed=probe)
    ledgers = [Ledger(store, lane) for lane in lanes_of(store)]
    for ledger in ledgers:
        ledger.refresh()
    with tempfile.TemporaryDirectory(prefix="pagemill-plan-") as scratch:
        state = LedgerState(ledgers[0].paths, Path(scratch), more_lanes=[ledger.paths for ledger in ledgers[1:]])
        changes = ChangeDetector(state)
        opener = _Opener(config, changes, found)
        try:
            for batch in batched(discover(source, config.source.storage_options, found.skipped, web=config.source.web)):
                todo = [candidate for candidate in changes.compare(batch) if candidate.verdict not in _KNOWN]
                found.unseen += len(todo)
                found.fetch_bytes += sum(candidate.size or 0 for candidate in todo)
                if probe:
                    opener.open(iter(todo))
        finally:
            opener.close()
        found.listed.update({str(verdict): count for verdict, count in changes.counts.items() if count})
        found.bytes = changes.listed_bytes
        _ask(state, found, prints)
        state.close()
    for ledger in ledgers:
        ledger.close()
    return found


class _Opener:
    """Counts the pages of what is new; a document is counted once, whatever its copies."""

    def __init__(self, config: Config, changes: ChangeDetector, found: Forecast) -> None:
        self._changes, self._found = changes, found
        cache = DocumentCache.of(config.source)
        self._prober = Prober(config, cache, changes.opened)
        self._seen: set[bytes] = set()

    def open(self, candidates: Iterator[Candidate]) -> None:
        for probed in self._prober.probe_all(candidates):
            if probed.error is not None:
                self._found.unopenable[probed.error.code] += 1
            elif probed.probe is not None and probed.doc_id is not None and self._is_new(probed.doc_id):
                self._found.new_pages += probed.probe.page_count

    def _is_new(self, doc_id: str) -> bool:
        half = bytes.fromhex(doc_id)[:16]
        if half in self._seen or self._changes.document(doc_id) is not None:
            return False
        self._seen.add(half)
        return True

    def close(self) -> None:
        self._prober.close()


_LISTED = """
CREATE TEMP TABLE listed_document AS
SELECT DISTINCT k.doc_id FROM known k SEMI JOIN listed l ON l.uri = k.uri ANTI JOIN replaced x ON x.uri = k.uri
WHERE k.doc_id IS NOT NULL
"""


# listed documents of which one complete reading exists and nothing else: their document records say all of their pages.
# For the others the one rule for readers, applied to their span records alone: over all records it takes minutes
_PAGES = """
CREATE TEMP TABLE simple_document AS
SELECT d.doc_id, d.ok, d.blank, d.degraded, d.failed, r.fingerprint, r.options
FROM document_latest d SEMI JOIN listed_document l ON l.doc_id = d.doc_id
JOIN doc_state s ON s.doc_id = d.doc_id AND s.newest = 1 AND s.open_revision IS NULL
JOIN revision_opened r ON r.doc_id = d.doc_id AND r.revision = 1;

CREATE TEMP TABLE other_page AS
SELECT s.*, c.doc_id IS NOT NULL AS complete, d.doc_id IS NOT NULL AS readable
FROM (SELECT s.doc_id, s.revision, unnest(s.pages) AS page_index, unnest(s.states) AS state,
             s.number * 1000000 + s."row" AS position
      FROM ledger s SEMI JOIN (SELECT doc_id FROM listed_document EXCEPT SELECT doc_id FROM simple_document) o
           ON o.doc_id = s.doc_id
      WHERE s.kind = 'span') s
LEFT JOIN document_all c ON c.doc_id = s.doc_id AND c.revision = s.revision
LEFT JOIN document_latest d ON d.doc_id = s.doc_id;

CREATE TEMP TABLE other_live AS
SELECT * FROM other_page WHERE complete OR (NOT readable AND revision = 1)
QUALIFY row_number() OVER (PARTITION BY doc_id, page_index ORDER BY position DESC) = 1;
"""


def _ask(state: LedgerState, found: Forecast, prints: Prints) -> None:
    """What the ledger knows of the listed documents."""
    add_option_prints(state.con, prints)
    state.con.execute(_LISTED)
    state.con.execute(_PAGES)
    of_listed = "SEMI JOIN listed_document l ON l.doc_id = d.doc_id"
    documents = f"SELECT state, count(*) FROM document_latest d {of_listed} GROUP BY state"
    found.documents.update(dict(state.rows(documents)))  # type: ignore[arg-type]
    found.pages.update(_pages(state))
    (other,) = state.rows(
        """SELECT (SELECT coalesce(sum(ok + blank + degraded + failed), 0)::BIGINT FROM simple_document s
                    LEFT JOIN option_print o ON o.options = s.options WHERE s.fingerprint <> coalesce(o.fingerprint, $1))
                + (SELECT count(*) FROM other_live d JOIN revision_opened r ON r.doc_id = d.doc_id AND r.revision = d.revision
                   LEFT JOIN option_print o ON o.options = r.options WHERE r.fingerprint <> coalesce(o.fingerprint, $1))""",
        [prints("")[0]],
    )
    (planned,) = state.rows(
        f"""SELECT coalesce(sum(len(d.pages)), 0)::BIGINT FROM revision_opened d {of_listed}
            ANTI JOIN document_all c ON c.doc_id = d.doc_id AND c.revision = d.revision"""
    )
    (read,) = state.rows("SELECT count(*) FROM (SELECT DISTINCT doc_id, revision, page_index FROM other_page WHERE NOT complete)")
    (again,) = state.rows(
        f"""SELECT coalesce(sum(d.retryable), 0)::BIGINT FROM document_latest d {of_listed} WHERE d.page_count IS NOT NULL
            AND d.doc_id NOT IN (SELECT doc_id FROM doc_state WHERE open_revision IS NOT NULL)"""
    )
    found.other_fingerprint, found.again = int(str(other[0])), int(str(again[0]))
    found.pending = int(str(planned[0])) - int(str(read[0]))
    known = """SELECT code, count(*) FROM (
                 SELECT coalesce(k.error_code, d.error_code) AS code FROM known k SEMI JOIN listed l ON l.uri = k.uri
                 ANTI JOIN replaced x ON x.uri = k.uri LEFT JOIN document_latest d ON d.doc_id = k.doc_id
                 LEFT JOIN doc_state s ON s.doc_id = k.doc_id
                 WHERE k.page_count IS NULL AND coalesce(k.retryable, s.retryable, 0) = 0)
               WHERE code IS NOT NULL GROUP BY code"""
    found.unopenable.update(dict(state.rows(known)))  # type: ignore[arg-type]
    found.rate = last_rate(state)


def _pages(state: LedgerState) -> Counter[str]:
    """Live pages of the listed documents, by state."""
    columns = ("ok", "blank", "degraded", "failed")
    (sums,) = state.rows(f"SELECT {', '.join(f'coalesce(sum({name}), 0)::BIGINT' for name in columns)} FROM simple_document")
    pages = Counter({name: int(str(number)) for name, number in zip(columns, sums, strict=True) if number})
    pages.update(dict(state.rows("SELECT state, count(*) FROM other_live GROUP BY state")))  # type: ignore[arg-type]
    return pages


def last_rate(state: LedgerState) -> float | None:
    """Pages a second of the newest run that read any."""
    rows = state.con.cursor().execute(
        "SELECT summary FROM ledger WHERE kind = 'run' ORDER BY run_id DESC, number DESC, \"row\" DESC"
    )
    while row := rows.fetchone():
        summary = json.loads(row[0])
        if summary.get("pages") and summary.get("pages_per_second"):
            return float(summary["pages_per_second"])
    return None
