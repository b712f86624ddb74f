"""What `status` counts is what the one rule for readers gives, whatever happened to the documents."""

from __future__ import annotations

from pathlib import Path

from pipelines.store.counts import count_pages
from pipelines.store.parts import PartWriter
from pipelines.store.reading import Output
from tests.store.made import A, B, C, Made

_STATES = "SELECT state, count(*) FROM live_page GROUP BY 1 ORDER BY 1"
_ERRORS = "SELECT code, count(*) FROM live_page WHERE code <> '' GROUP BY 1"
_PRINTS = """SELECT coalesce(p.fingerprint, r.fingerprint), '', count(*) FROM live_page p
             JOIN revision_opened r ON r.doc_id = p.doc_id AND r.revision = p.revision GROUP BY 1 ORDER BY 3 DESC"""


def test_counts_are_those_of_the_one_rule(tmp_path: Path) -> None:
    made, names = Made(tmp_path / "out"), [A, B, C, "d" * 64, "e" * 64]
    for doc_id in names:
        made.opened(doc_id, 1, [0, 1, 2])
    made.span(A, 1, (0, 1, 2), "read once")
    made.complete(A, 1, 3)
    made.span(B, 1, (0, 1), "read")
    made.span(B, 1, (1,), "read twice")
    made.failed(B, 1, 2)
    made.complete(B, 1, 2, failed=1)
    made.span(C, 1, (0,), "interrupted")
    made.writer = PartWriter(made.store, "run", "another")  # a run that goes on with another configuration
    made.span(names[3], 1, (0, 1, 2), "read with another")
    made.complete(names[3], 1, 3)
    made.span(names[4], 1, (0, 1, 2), "read before")
    made.complete(names[4], 1, 3)
    made.opened(names[4], 2, [1])
    made.failed(names[4], 2, 1)
    made.complete(names[4], 2, 2, failed=1)
    with Output(str(tmp_path / "out"), parts=False) as output:
        found = count_pages(output.con)
        states, errors, prints = (output.con.execute(sql).fetchall() for sql in (_STATES, _ERRORS, _PRINTS))
        (simple,) = output.con.execute("SELECT list(doc_id) FROM simple_document").fetchall()
    assert simple == ([A],)
    assert found.states == states == [("failed", 2), ("ok", 11)]
    assert found.errors == errors == [("PAGE_TIMEOUT", 2)]
    assert found.prints == prints == [("print", "", 7), ("another", "", 6)]
    assert found.pending == 2
