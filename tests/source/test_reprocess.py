"""Reprocessing: exactly the chosen pages, from the same bytes, once, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pagemill
from pipelines.errors import ConfigError, ExitCode
from pipelines.ingest import Ended, preview, reprocess
from pipelines.store.audit import audit
from pipelines.store.choosing import Choice, read_ids
from tests.builders import archive, locked_pdf, pdf_bytes, text_pdf
from tests.conftest import inline, inline_config

Rows = dict[tuple[str, int], dict[str, object]]


def again(output: Path, where: str | None = None, ids: pa.Table | None = None, **settings: object) -> Ended:
    return reprocess(str(output), Choice(where, None, ids), inline_config(output, **settings), inline=True)


def pages(output: Path, **more: bool) -> Rows:
    rows = pagemill.read(str(output), "pages", **more).to_pylist()
    return {(row["doc_id"], row["page_index"]): row for row in rows}


def sound(output: Path) -> None:
    result = audit(str(output))
    assert result.ok, result.problems


@pytest.fixture
def output(tmp_path: Path) -> Path:
    source = archive(tmp_path / "in", {"a": 5, "b": 2})
    assert inline(source, tmp_path / "out").exit_code == ExitCode.OK
    return tmp_path / "out"


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that no test changes."""
    folder = tmp_path_factory.mktemp("settled")
    inline(archive(folder / "in", {"a": 5, "b": 2}), folder / "out")
    return folder / "out"


def test_exactly_the_chosen_pages_and_both_versions(output: Path) -> None:
    before = pages(output)
    ended = again(output, "page_index IN (1, 3) AND page_count = 5", raster__dpi=72)
    assert (ended.exit_code, ended.summary.pages["ok"]) == (ExitCode.OK, 2)
    after = pages(output)
    changed = {key for key in after if after[key]["attempt"] != before[key]["attempt"]}
    assert {page for _, page in changed} == {1, 3}
    assert {(after[key]["width_px"], after[key]["revision"]) for key in changed} == {(300, 2)}
    assert all(after[key] == before[key] for key in after.keys() - changed)
    history = pagemill.read(str(output), "pages", history=True).to_pylist()
    assert len(history) == 9
    assert sorted(row["revision"] for row in history if not row["is_live"]) == [1, 1]
    markdown = [row["markdown"] for row in pagemill.read(str(output), "documents", history=True).to_pylist()]
    assert all((output / key).exists() for key in markdown)
    assert len(markdown) == 3
    sound(output)


def test_what_another_configuration_read_once(output: Path) -> None:
    config = inline_config(output, raster__dpi=72)
    choice = Choice("fingerprint <> current")
    found = preview(str(output), choice, config)
    assert (found.pages.total(), found.documents, found.other) == (7, 2, 7)
    assert again(output, "fingerprint <> current", raster__dpi=72).summary.pages.total() == 7
    assert preview(str(output), choice, config).pages.total() == 0
    assert again(output, "fingerprint <> current", raster__dpi=72).summary.status == "nothing_to_do"
    assert {row["width_px"] for row in pages(output).values()} == {300}
    sound(output)


def test_terminal_failures_are_read_again_with_a_fresh_budget(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 3}), tmp_path / "out"
    inline(source, output)
    ((doc_id, _), *_) = pages(output)
    spent = tmp_path / "out-cache" / doc_id[:2] / f"{doc_id}.budget"
    spent.write_text("99999")
    assert inline(source, tmp_path / "out2", source__cache_dir=tmp_path / "out-cache").exit_code == ExitCode.SOME_FAILED
    assert {row["error_code"] for row in pages(tmp_path / "out2").values()} == {"BUDGET_EXCEEDED"}
    cache = {"source__cache_dir": tmp_path / "out-cache"}
    assert inline(source, tmp_path / "out2", **cache).summary.status == "nothing_to_do"  # terminal: done
    assert again(tmp_path / "out2", "error_code = 'BUDGET_EXCEEDED'", **cache).exit_code == ExitCode.OK
    assert {row["state"] for row in pages(tmp_path / "out2").values()} == {"ok"}
    sound(tmp_path / "out2")


def test_a_page_that_was_read_keeps_its_reading_when_another_fails(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pdf").write_bytes(pdf_bytes(["BROKEN at first", "PLAIN text", "more"]))
    output, reader = tmp_path / "out", {"recognize__engine": "tests.readers:MoodyReader"}
    inline(tmp_path / "in", output, **reader)
    first = {page: row for (_, page), row in pages(output).items()}
    assert [first[page]["state"] for page in range(3)] == ["failed", "ok", "ok"]
    ended = again(output, "fingerprint <> current", recognize__ocr="tiny", **reader)
    assert ended.exit_code == ExitCode.SOME_FAILED
    assert [(failure.page_index, failure.code) for failure in ended.summary.failures] == [(1, "ENGINE_FAILED")]
    assert "the earlier reading stays" in ended.summary.failures[0].message
    after = {page: row for (_, page), row in pages(output).items()}
    assert [after[page]["state"] for page in range(3)] == ["ok", "ok", "ok"]
    assert [after[page]["revision"] for page in range(3)] == [2, 1, 2]
    assert after[1] == first[1]
    (document,) = pagemill.read(str(output), "documents").to_pylist()
    assert (document["state"], document["ok"], document["failed"], document["revision"]) == ("ok", 3, 0, 2)
    failed = [row for row in pagemill.read(str(output), "pages", history=True).to_pylist() if row["state"] == "failed"]
    assert sorted((row["page_index"], row["revision"]) for row in failed) == [(0, 1), (1, 2)]  # both are on record
    # it is still what another configuration read
    assert (
        preview(str(output), Choice("fingerprint <> current"), inline_config(output, recognize__ocr="tiny", **reader)).other == 1
    )
    sound(output)


def test_vanished_and_changed_sources_are_said_and_left_alone(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"kept": 1, "gone": 1, "changed": 2, "twice": 1}), tmp_path / "out"
    (source / "copy.pdf").write_bytes((source / "twice.pdf").read_bytes())
    inline(source, output)
    before = pages(output)
    (source / "gone.pdf").unlink()
    (source / "copy.pdf").unlink()  # the other one still has the bytes
    text_pdf(source / "changed.pdf", 2, "something else")
    ended = again(output, "true", raster__dpi=72, source__cache_dir=tmp_path / "empty")
    assert ended.exit_code == ExitCode.SOME_FAILED
    left = {Path(failure.uri).name: failure for failure in ended.summary.failures}
    assert {name: failure.code for name, failure in left.items()} == {
        "gone.pdf": "SOURCE_UNREADABLE",
        "changed.pdf": "SOURCE_CHANGED",
    }
    assert all(failure.message.startswith("left as it was: ") for failure in left.values())
    after = pages(output)
    assert sorted(row["width_px"] for row in after.values()) == [150, 150, 150, 300, 300]
    assert after.keys() == before.keys()
    sound(output)


def test_documents_that_could_not_be_opened(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"plain": 1}), tmp_path / "out"
    for name, password in (("known", "s3cret"), ("unknown", "other")):
        (source / f"{name}.pdf").write_bytes(locked_pdf([f"{name} {page}" for page in range(3)], password))
    inline(source, output)
    config = inline_config(output)
    assert preview(str(output), Choice("state = 'encrypted'"), config).unopened == {"ENCRYPTED": 2}
    ended = again(output, "state = 'encrypted'", source__passwords='["s3cret"]')
    assert ended.exit_code == ExitCode.SOME_FAILED
    assert [(Path(failure.uri).name, failure.code) for failure in ended.summary.failures] == [("unknown.pdf", "ENCRYPTED")]
    assert len(pages(output)) == 4
    sound(output)


def test_ids_from_a_file(output: Path, tmp_path: Path) -> None:
    (first, *_) = [doc for doc, page in pages(output) if page == 4]
    table = pa.table({"doc_id": [first, first, "f" * 64], "page_index": pa.array([0, 2, 0], pa.int64())})
    pq.write_table(table, tmp_path / "ids.parquet")
    (tmp_path / "ids.csv").write_text(f"page_index,doc_id,why\n0,{first},blurred\n2,{first},blurred\n")
    ids = read_ids(str(tmp_path / "ids.parquet"), {})
    assert ids.slice(0, 2).equals(read_ids(str(tmp_path / "ids.csv"), {}))
    found = preview(str(output), Choice(ids=ids), inline_config(output))
    assert (found.pages.total(), found.unknown) == (2, 1)
    assert again(output, "page_index < 2", ids).summary.pages.total() == 1
    whole = pa.table({"doc_id": [first]})
    pq.write_table(whole, tmp_path / "whole.parquet")
    assert again(output, ids=read_ids(str(tmp_path / "whole.parquet"), {})).summary.pages.total() == 5
    for name, content in (("none.csv", "document\n1\n"), ("bad.csv", "doc_id,page_index\nx,one\n"), ("bad.parquet", "no")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=name):
            read_ids(str(tmp_path / name), {})


@pytest.mark.parametrize(
    "predicate",
    [
        "state = 'ok'; DROP TABLE chosen", "true) OR (true", "state", "true FROM pages", "true, true", "true AS x", "*", "",
        "true UNION SELECT true", "true ORDER BY 1", "true LIMIT 1", "stat = 'ok'", "state = ",
        "doc_id IN (SELECT content FROM read_text('/etc/hostname'))", "doc_id IN (FROM 'SECRET')", "EXISTS (FROM glob('/etc/*'))",
        "doc_id IN (SELECT doc_id FROM inside)", "(COPY pages TO 'x.csv')", "EXISTS (FROM read_csv('http://127.0.0.1:9/x'))",
    ],
)  # fmt: skip
def test_nothing_but_a_predicate_is_executed(settled: Path, tmp_path: Path, predicate: str) -> None:
    (tmp_path / "secret.csv").write_text("doc_id\nx\n")
    inside = pa.table({"doc_id": ["x"]})  # DuckDB would find it by its name
    assert inside.num_rows == 1
    before = sorted(settled.rglob("*"))
    with pytest.raises(ConfigError):
        preview(str(settled), Choice(predicate.replace("SECRET", str(tmp_path / "secret.csv"))), inline_config(settled))
    assert sorted(settled.rglob("*")) == before


def test_predicates_may_ask_parts_and_carry_comments(settled: Path) -> None:
    config = inline_config(settled)

    def count(where: str) -> int:
        return preview(str(settled), Choice(where), config).pages.total()

    assert count("state = 'ok' -- all of them") == 7
    assert count("contains(markdown, 'page 4')") == 1
    assert count("len(blocks) = 1 AND uri LIKE '%/b.pdf' AND format = 'pdf'") == 2
    assert count("(doc_id, page_index) IN (SELECT (doc_id, page_index) FROM blocks WHERE label = 'text')") == 7
    assert count("current = fingerprint") == 7


def test_an_open_reading_is_finished_before_another(tmp_path: Path) -> None:
    """A stop in the middle, with the same request again, with another one, and with ingest."""
    source, output = archive(tmp_path / "in", {"a": 4, "b": 3}), tmp_path / "out"
    inline(source, output)
    from pipelines.output import open_existing
    from pipelines.store.ledger import Ledger
    from pipelines.store.records import record

    config = inline_config(output)
    store = open_existing(str(output), config.store)
    ledger = Ledger(store)
    ledger.claim("20200101T000000Z-killed", 1, 60)
    (a,) = {doc for doc, page in pages(output) if page == 3}
    request = Choice("page_index < 2").digest(next(iter(pages(output).values()))["fingerprint"])  # type: ignore[arg-type]
    ledger.append(
        [record("run", run_id="20200101T000000Z-killed", summary=json.dumps({"status": "running", "request": request}))]
    )
    ledger.append(
        [record("revision", doc_id=a, revision=2, pages=[0, 1], fingerprint="x", run_id="20200101T000000Z-killed", tries=1)]
    )
    ledger.release()
    other = again(output, "page_index = 3")  # asks for a page of the same document that the open reading does not have
    assert other.summary.pages.total() == 2
    assert "run the same command again" in other.summary.message
    same = again(output, "page_index < 2")  # goes on with the killed run: its document is done
    assert same.summary.pages.total() == 2
    assert {doc for (doc, page), row in pages(output).items() if row["revision"] == 2 and page < 2} == {
        doc for doc, _ in pages(output)
    }
    assert again(output, "page_index < 2").summary.pages.total() == 4  # that one ended: this is a new request
    sound(output)
