"""What an output holds, counted: pages by state and by configuration, errors, what is pending.

Invariant: the counts are those of `live_page`, the one rule for readers; documents that were read once, whole, with one
configuration and without a failure are counted by their document records. Over 100 million pages the rule itself would sort
each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from pipelines.store.state import install_asked

_DIVIDED = """
CREATE OR REPLACE TEMP TABLE simple_document AS
WITH once AS (SELECT doc_id, any_value(revision) AS revision, any_value(fingerprint) AS fingerprint,
                     any_value(options) AS options
              FROM ledger WHERE kind = 'revision' GROUP BY doc_id HAVING count(DISTINCT revision) = 1)
SELECT d.doc_id, d.ok, d.blank, d.degraded, o.fingerprint, coalesce(o.options, '') AS options
FROM document_latest d JOIN once o ON o.doc_id = d.doc_id AND o.revision = d.revision
ANTI JOIN (SELECT s.doc_id FROM ledger s JOIN once o ON o.doc_id = s.doc_id
           WHERE s.kind = 'span' AND s.fingerprint <> o.fingerprint) x ON x.doc_id = d.doc_id
WHERE d.failed = 0;

INSERT INTO asked SELECT doc_id FROM ledger WHERE kind = 'revision' EXCEPT SELECT doc_id FROM simple_document;
"""

_STATES = """
SELECT state, sum(pages)::BIGINT FROM (
  SELECT state, pages FROM (SELECT sum(ok) AS ok, sum(blank) AS blank, sum(degraded) AS degraded FROM simple_document)
    UNPIVOT (pages FOR state IN (ok, blank, degraded))
  UNION ALL SELECT state, count(*) FROM live_page_asked GROUP BY state)
WHERE pages > 0 GROUP BY 1 ORDER BY 1
"""

_ERRORS = "SELECT code, count(*) FROM live_page_asked WHERE code <> '' GROUP BY 1 ORDER BY 2 DESC, 1"

_PRINTS = """
SELECT fingerprint, options, sum(pages)::BIGINT FROM (
  SELECT fingerprint, options, sum(ok + blank + degraded) AS pages FROM simple_document GROUP BY 1, 2
  UNION ALL
  SELECT coalesce(p.fingerprint, r.fingerprint), coalesce(r.options, ''), count(*) FROM live_page_asked p
  JOIN revision_opened r ON r.doc_id = p.doc_id AND r.revision = p.revision GROUP BY 1, 2)
WHERE pages > 0 GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""

_PENDING = """
SELECT coalesce(sum(d.pages), 0)::BIGINT - (SELECT count(*) FROM revision_page_asked p
       ANTI JOIN document_all c ON c.doc_id = p.doc_id AND c.revision = p.revision)
FROM (SELECT doc_id, revision, any_value(len(pages)) AS pages FROM ledger WHERE kind = 'revision' GROUP BY 1, 2) d
ANTI JOIN document_all c ON c.doc_id = d.doc_id AND c.revision = d.revision
"""


@dataclass(slots=True, frozen=True)
class PageCounts:
    """Pages of all documents that the ledger knows."""

    states: Sequence[tuple[str, int]]
    errors: Sequence[tuple[str, int]]  # by code, the most frequent first
    prints: Sequence[tuple[str, str, int]]  # fingerprint, options of the document alone, pages; the most pages first
    pending: int  # of readings that were opened and are not complete


def count_pages(con: duckdb.DuckDBPyConnection) -> PageCounts:
    """Counts over a connection with the ledger's views."""
    install_asked(con)
    con.execute(_DIVIDED)
    states, errors, prints, pending = (con.execute(sql).fetchall() for sql in (_STATES, _ERRORS, _PRINTS, _PENDING))
    return PageCounts(states, errors, prints, pending[0][0])
