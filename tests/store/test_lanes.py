"""Lanes: jobs that share an output and nothing else, read back and audited as one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pagemill
from jobs.cli import app
from pipelines.errors import ConfigError, ExitCode, Fenced
from pipelines.lanes import Lane, number_of
from pipelines.output import choose_lane, open_output
from pipelines.store.audit import audit
from pipelines.store.compact import Compactor
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import comparable
from pipelines.store.records import record
from tests.builders import text_pdf_in_lane
from tests.conftest import inline, inline_config
from tests.store.made import A, B, Made

TWO = 2


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three documents in lane 0, two in lane 1."""
    folder = tmp_path_factory.mktemp("lanes") / "in"
    for lane, names in enumerate((("a", "b", "c"), ("d", "e"))):
        for pages, name in enumerate(names, 1):
            text_pdf_in_lane(folder, name, pages, lane, TWO)
    return folder


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    for lane in range(TWO):
        inline(source, output, lanes=TWO, lane=lane, source__span_pages=1)
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """An output of two lanes that have read all of `source`, a page a part."""
    return shutil.copytree(finished, tmp_path / "out")


def read(output: Path) -> list[dict[str, object]]:
    return list(comparable(pagemill.read(str(output), "pages")).to_pylist())


def run(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    return ended.exit_code, ended.output


def test_a_uri_has_the_same_lane_for_ever() -> None:
    uris = [f"s3://bucket/archive/{number:05d}.pdf" for number in range(9000)]
    shares = Counter(number_of(uri, 3) for uri in uris)
    assert all(2800 < shares[lane] < 3200 for lane in range(3))
    # written down: another function would read an archive twice, and call half of it vanished
    assert [number_of(uri, 7) for uri in ("s3://bucket/a.pdf", "/data/b.pdf", "/data/空.pdf")] == [5, 0, 1]


def test_lanes_together_are_the_whole_archive(source: Path, tmp_path: Path) -> None:
    split, whole = tmp_path / "split", tmp_path / "whole"
    inline(source, whole)
    first = inline(source, split, lanes=TWO, lane=1)
    assert first.summary.skipped["other_lane"] == 3
    half = audit(str(split))
    assert (half.ok, half.idle_lanes, half.problems) == (False, [0], [])  # nobody looked at lane 0's sources
    assert inline(source, split, lane=0).exit_code == ExitCode.OK
    assert read(split) == read(whole)
    assert audit(str(split)).ok
    assert pagemill.read(str(split), "sources").num_rows == 5
    assert inline(source, split, lane=1).summary.status == "nothing_to_do"
    code, said = run("status", split)
    assert (code, "2, of which 2 have begun" in said, "9 ok" in said) == (0, True, True), said
    code, said = run("plan", source, split, "--set", "recognize.engine=echo", "--set", "layout.engine=none")
    assert (code, "5 done" in said, "nothing to read" in said) == (0, True, True), said


def test_the_number_of_lanes_is_fixed_when_an_output_is_made(source: Path, output: Path, tmp_path: Path) -> None:
    for lanes, lane, words in (
        (3, 0, "has 2 lanes"),
        (None, None, "--lane 0 to --lane 1"),
        (TWO, 2, "no lane 2"),
        (1, None, "2 lanes"),
    ):
        with pytest.raises(ConfigError, match=words):
            inline(source, output, lanes=lanes, lane=lane)
    single = Made(tmp_path / "single")
    with pytest.raises(ConfigError, match="fixed when it was made"):
        inline(source, single.root, lanes=TWO, lane=1)
    assert not (tmp_path / "single" / "ledger" / "1").exists()


def test_a_lane_marks_vanished_what_is_its_own(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    _, gone = (text_pdf_in_lane(source, "document", 1, lane, TWO) for lane in range(TWO))
    for lane in range(TWO):
        inline(source, output, lanes=TWO, lane=lane)
    gone.unlink()
    assert inline(source, output, lane=0).summary.listed["vanished"] == 0
    assert inline(source, output, lane=1).summary.listed["vanished"] == 1
    presence = {row["uri"]: row["presence"] for row in pagemill.read(str(output), "sources").to_pylist()}
    assert [uri for uri, state in presence.items() if state == "vanished"] == [str(gone)]


def test_copies_in_several_lanes_are_one_document(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    original, copy = (text_pdf_in_lane(source, "document", 2, lane, TWO) for lane in range(TWO))
    assert copy.read_bytes() == original.read_bytes()
    for lane in (1, 0):
        inline(source, output, lanes=TWO, lane=lane)
        rows = pagemill.read(str(output), "pages").to_pylist()
        keys = [(row["doc_id"], row["page_index"]) for row in rows]
        assert len(keys) == len(set(keys))
    result = audit(str(output))
    assert (result.ok, result.documents, result.sources) == (True, 1, 2), result.problems
    assert run("gc", output, "--older-than-h", 0)[0] == 0  # the copy's own parts stay: its lane counts on them
    assert inline(source, output, lane=1).summary.status == "nothing_to_do"
    assert audit(str(output)).ok


def test_a_document_belongs_to_the_lowest_lane_in_which_it_is_complete(tmp_path: Path) -> None:
    lanes = [Made(tmp_path / "out", Lane(number, 3)) for number in range(3)]
    for made in lanes:
        made.source(f"uri {made.ledger.lane.number}", A)
        made.opened(A, 1, [0])
    lanes[0].span(A, 1, (0,), "zero")  # read there, not complete
    lanes[2].span(A, 1, (0,), "two")
    assert lanes[0].markdown() == {("a", 0): "zero 0"}
    lanes[2].complete(A, 1, 1)
    assert lanes[0].markdown() == {("a", 0): "two 0"}
    lanes[1].span(A, 1, (0,), "one")
    lanes[1].complete(A, 1, 1)
    assert lanes[0].markdown() == {("a", 0): "one 0"}
    lanes[2].opened(A, 2, [0])
    lanes[2].span(A, 2, (0,), "two again")
    lanes[2].complete(A, 2, 1)
    assert lanes[0].markdown() == {("a", 0): "one 0"}
    assert pagemill.read(str(tmp_path / "out"), "documents")["revision"].to_pylist() == [1]


def test_compaction_and_gc_look_after_all_lanes(output: Path) -> None:
    before = read(output)
    store = ObjectStore(str(output))
    for number in range(TWO):
        ledger = Ledger(store, Lane(number, TWO))
        assert Compactor(store, ledger, 30_000).compact().files >= 1
        ledger.close()
    assert read(output) == before
    code, said = run("gc", output, "--older-than-h", 0)
    assert (code, "compacted part" in said) == (0, True), said
    assert read(output) == before
    result = audit(str(output))
    assert (result.ok, result.orphans) == (True, 0), result.problems
    assert run("compact", output)[0] == 0


def test_gc_declares_a_superseded_part_in_the_lane_that_names_it(tmp_path: Path) -> None:
    zero, one = (Made(tmp_path / "out", Lane(number, TWO)) for number in range(TWO))
    one.source("uri", B)
    for revision, text in enumerate(("old", "new"), 1):
        one.opened(B, revision, [0])
        one.span(B, revision, (0,), text)
        one.complete(B, revision, 1)
    zero.ledger.release()
    one.ledger.release()
    code, said = run("gc", tmp_path / "out", "--older-than-h", 0, "--keep-revisions", 1)
    assert (code, "1 x superseded part" in said) == (0, True), said
    assert zero.markdown() == {("b", 0): "new 0"}
    moved = pagemill.read(str(tmp_path / "out"), "pages", history=True)  # does not look for the part that is gone
    assert moved["markdown"].to_pylist() == ["new 0"]


def test_gc_never_runs_beside_a_driver_of_any_lane(tmp_path: Path) -> None:
    zero = Made(tmp_path / "out", Lane(0, TWO))
    zero.ledger.release()
    driver = Made(tmp_path / "out", Lane(1, TWO), beat_s=0.05)
    with pytest.raises(Fenced):
        CliRunner().invoke(app, ["gc", str(tmp_path / "out"), "--set", "claim.stale_after_s=60"], catch_exceptions=False)
    zero.ledger.claim("another", 0.3, 60)  # gc gave lane 0 back
    zero.ledger.release()
    driver.ledger.append([record("run", run_id="run", summary="{}")])  # and did not take lane 1
    driver.ledger.release()


def test_a_fenced_driver_is_told_which_lane(tmp_path: Path) -> None:
    Made(tmp_path / "out", Lane(1, TWO), beat_s=0.05)
    second = Ledger(ObjectStore(str(tmp_path / "out")), Lane(1, TWO))
    with pytest.raises(Fenced, match="lane 1 of 2 of this output"):
        second.claim("second", 60, 60)


def test_the_audit_sees_a_source_in_the_wrong_lane(source: Path, output: Path) -> None:
    stray = next(str(path) for path in source.iterdir() if number_of(str(path), TWO) == 0)
    ledger = Ledger(ObjectStore(str(output)), Lane(1, TWO))
    ledger.claim("stray", 1, 60)
    ledger.append([record("source", uri=stray, presence="present", error_code="SOURCE_UNREADABLE")])
    ledger.release()
    result = audit(str(output))
    assert any("recorded in lane 1, but lane 0" in problem for problem in result.problems), result.problems


def test_drivers_that_make_one_output_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks for the mark before it is there, and at what is there when it is."""
    output = tmp_path / "out"
    listed = ObjectStore.list

    def late(store: ObjectStore, prefix: str = "") -> Iterator[str]:
        store.put_new("pagemill.json", json.dumps({"format": "1.0", "lanes": TWO}).encode())
        store.put_new("ledger/0/00000001.parquet", b"of the first")
        return listed(store, prefix)

    monkeypatch.setattr(ObjectStore, "list", late)
    store = open_output(str(output), inline_config(output).store, lanes=3)
    with pytest.raises(ConfigError, match="has 2 lanes"):
        choose_lane(store, 3, 0)
    assert choose_lane(store, None, 1) == Lane(1, TWO)


def test_a_reprocess_is_a_lanes_job_too(source: Path, output: Path) -> None:
    echo = ("--inline", "--set", "recognize.engine=echo", "--set", "layout.engine=none", "--set", "raster.dpi=36")
    code, said = run("reprocess", output, "--where", "page_index = 0", *echo)
    assert (code, isinstance(said, str)) == (1, True)  # a named error, which the console script prints
    code, said = run("reprocess", output, "--where", "page_index = 0", "--lane", 1, *echo)
    assert code == 0, said
    uris = {row["doc_id"]: row["uri"] for row in pagemill.read(str(output), "sources").to_pylist()}
    for row in pagemill.read(str(output), "pages").to_pylist():
        again = row["page_index"] == 0 and number_of(uris[row["doc_id"]], TWO) == 1
        assert row["revision"] == (2 if again else 1), row
    assert audit(str(output)).ok
