"""Any page of any run again: the one that this run read, moved or not, from object storage; a drained run draws nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config import load
from pipelines.errors import ConfigError, ExitCode
from pipelines.ingest import _report, ingest
from pipelines.observe.recall import recall
from pipelines.observe.sample import Pick
from pipelines.observe.summary import Summary
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import Output
from pipelines.store.records import record
from tests.builders import page_text, pdf_bytes
from tests.observe.test_diff import A, Runs
from tests.s3server import S3

FAST = ["recognize.engine=echo", "layout.engine=none"]


def recalled(root: str, run: str | None, *pages: str) -> str:
    with Output(root, parts=False) as output:
        return recall(output, load(), run, pages)[0]


def test_a_page_as_each_run_read_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "out")
    runs.run("first", A, 1, "as it was", "and another")
    runs.ledger.append([record("document", doc_id=A, revision=1, state="ok", page_count=2, ok=2, blank=0, degraded=0, failed=0)])
    runs.run("second", A, 2, "as it became")
    assert "as it was" in recalled(runs.root, "first", "one.pdf:1")
    assert "as it became" in recalled(runs.root, "second", "one.pdf:1")
    assert "as it was" in recalled(runs.root, None, f"{A[:8]}:1")  # live: the second reading is not complete yet
    with pytest.raises(ConfigError, match="in run second"):
        recalled(runs.root, "second", "one.pdf:2")
    runs.ledger.append([record("document", doc_id=A, revision=2, state="ok", page_count=2, ok=2, blank=0, degraded=0, failed=0)])
    both = recalled(runs.root, None, "one.pdf:1-2")
    assert "as it became" in both
    assert "and another" in both
    runs.run("third", A, 3, *[f"page {n}" for n in range(250)])
    with pytest.raises(ConfigError, match="too many"):
        recalled(runs.root, "third", "one.pdf:1-250")


def test_parts_that_compaction_moved_are_found(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "out")
    runs.run("first", A, 1, "where is it now")
    with Output(runs.root, parts=False) as output:
        ((part,),) = output.con.execute("SELECT DISTINCT part FROM live_page").fetchall()
    store = ObjectStore(runs.root)
    store.put("pages/part-new.parquet", store.get(part))
    runs.ledger.append([record("moved", old_part=part, new_part="pages/part-new.parquet")])
    store.delete(part)
    assert "where is it now" in recalled(runs.root, "first", "one.pdf:1")
    assert "where is it now" in recalled(runs.root, None)


def test_source_and_output_in_object_storage(s3: S3, tmp_path: Path) -> None:
    bucket, options = s3.bucket(), json.dumps(s3.options())
    ObjectStore(bucket, s3.options()).put("in/a.pdf", pdf_bytes([page_text("a", page) for page in range(3)]))
    stores = [f"source.storage_options={options}", f"store.storage_options={options}", f"source.cache_dir={tmp_path / 'one'}"]
    config = load(settings=[*FAST, *stores, "observe.report_pages=2"])
    ended = ingest(f"{bucket}/in", f"{bucket}/out", config, inline=True)
    html = ObjectStore(f"{bucket}/out", s3.options()).get(ended.report["report.html"]).decode()
    assert html.count("data:image/webp") == 4
    elsewhere = load(settings=[*FAST, *stores[:2], f"source.cache_dir={tmp_path / 'two'}"])  # a machine that holds nothing yet
    with Output(f"{bucket}/out", s3.options(), parts=False) as output:
        html, _ = recall(output, elsewhere, None, ["a.pdf:1-3"])
    assert html.count("data:image/webp") == 6
    assert "Document a page 2 says" in html


@pytest.mark.parametrize(("status", "drawn"), [("finished", 1), ("interrupted", 0), ("failed", 0)])
def test_only_a_run_that_finished_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, drawn: int) -> None:
    runs = Runs(tmp_path / "out")
    summary = Summary("first", "/in", runs.root, "f", {}, pending=0)
    summary.status = status
    asked: list[Pick] = []
    monkeypatch.setattr(summary.sampler, "choose", lambda most: [Pick(0, A, 0, "/x", "pages/no.parquet", "a", "ok", "random")])

    def row_of(store: ObjectStore, pick: Pick) -> None:
        asked.append(pick)
        raise RuntimeError("a bug, or anything else")

    monkeypatch.setattr("pipelines.observe.pages.read_row", row_of)
    keys = _report(summary, ExitCode.OK, runs.store, runs.ledger, load())
    assert len(asked) == drawn
    assert (b"a bug, or anything else" in runs.store.get(keys["report.html"])) == bool(drawn)
    assert json.loads(runs.store.get(keys["report.json"]))["status"] == status
