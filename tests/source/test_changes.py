"""What a later run makes of a source that changed: new, changed, moved, copied, vanished, back, gone in the middle."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pagemill
from pipelines.cluster.feed import Feed
from pipelines.errors import ExitCode, SourceUnreadable
from pipelines.ingest import Ended
from pipelines.pipeline import Run
from pipelines.source.cache import DocumentCache
from pipelines.stages import Outcome
from pipelines.store.audit import audit
from tests.builders import archive, text_pdf
from tests.conftest import inline


def sources(output: Path) -> dict[str, dict[str, object]]:
    return {Path(str(row["uri"])).name: row for row in pagemill.read(str(output), "sources").to_pylist()}


def pages(output: Path) -> dict[str, list[str]]:
    """States (or codes) of the pages of every document that a URI names, by the first of its names."""
    names = {row["doc_id"]: Path(row["uris"][0]).name for row in pagemill.read(str(output), "documents").to_pylist()}
    found: dict[str, list[str]] = {}
    for row in pagemill.read(str(output), "pages").to_pylist():
        found.setdefault(names.get(row["doc_id"], "open"), []).append(row["error_code"] or row["state"])
    return found


def listed(ended: Ended) -> dict[str, int]:
    return dict(ended.summary.listed)


def test_a_source_over_seven_nights(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 2, "b": 1}), tmp_path / "out"
    first = inline(source, output)
    assert (listed(first), first.exit_code, first.summary.status) == ({"new": 2}, ExitCode.OK, "finished")
    assert first.summary.requests["source_get"] == 2
    quiet = inline(source, output)
    assert (listed(quiet), quiet.summary.status, quiet.summary.requests["source_get"]) == ({"done": 2}, "nothing_to_do", 0)

    text_pdf(source / "a.pdf", 3, "changed")  # other bytes
    os.utime(source / "b.pdf")  # the same bytes, touched
    changed = inline(source, output)
    assert listed(changed) == {"changed": 2}
    assert changed.summary.pages == {"ok": 3}
    assert pages(output) == {"a.pdf": ["ok"] * 3, "b.pdf": ["ok"]}
    assert pagemill.read(str(output), "pages", history=True).num_rows == 6

    shutil.copy(source / "a.pdf", source / "copy.pdf")  # a copy is one more source record and no work
    copied = inline(source, output)
    assert (listed(copied), copied.summary.planned_pages) == ({"done": 2, "new": 1}, 0)
    assert sources(output)["copy.pdf"]["doc_id"] == sources(output)["a.pdf"]["doc_id"]

    (source / "b.pdf").unlink()
    gone = inline(source, output)
    assert (listed(gone), gone.summary.status) == ({"done": 2, "vanished": 1}, "nothing_to_do")
    assert sources(output)["b.pdf"]["presence"] == "vanished"
    assert pages(output)["b.pdf"] == ["ok"]  # it keeps its last reading
    assert listed(inline(source, output)) == {"done": 2}  # vanished is said once

    text_pdf(source / "b.pdf", 1)
    back = inline(source, output)
    assert back.summary.planned_pages == 0
    assert sources(output)["b.pdf"]["presence"] == "present"
    assert audit(str(output), [str(path) for path in source.iterdir()]).ok
    assert pagemill.read(str(output), "sources", history=True).num_rows == 2 + 2 + 1 + 1 + 1


def test_an_object_that_came_back_unchanged_is_back(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1, "b": 1}), tmp_path / "out"
    inline(source, output)
    os.rename(source / "b.pdf", tmp_path / "b.pdf")
    inline(source, output)
    before = os.stat(tmp_path / "b.pdf").st_ctime_ns
    os.rename(tmp_path / "b.pdf", source / "b.pdf")
    back = inline(source, output)
    wanted = "back" if os.stat(source / "b.pdf").st_ctime_ns == before else "changed"  # some file systems count a rename
    assert listed(back) == {"done": 1, wanted: 1}
    assert sources(output)["b.pdf"]["presence"] == "present"


def test_what_could_not_be_fetched_and_then_vanished_is_accounted_for(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1, "b": 2}), tmp_path / "out"
    (source / "dangling.pdf").symlink_to(tmp_path / "nowhere")
    assert inline(source, output).exit_code == ExitCode.SOME_FAILED
    assert (audit(str(output)).unfetched, audit(str(output)).ok) == (1, True)
    (manifest := tmp_path / "rows.csv").write_text(f"uri,pages\n{text_pdf(source / 'c.pdf', 1)},7-9\n")
    assert inline(manifest, output).exit_code == ExitCode.SOME_FAILED  # a document is known, and no page of it was asked for
    for name in ("dangling.pdf", "c.pdf"):
        (source / name).unlink()
    assert listed(inline(source, output)) == {"done": 2, "vanished": 2}
    found = audit(str(output), map(str, source.iterdir()))
    assert (found.problems, found.unfetched, found.ok) == ([], 0, True)


def test_another_source_into_the_same_output_marks_nothing_vanished(tmp_path: Path) -> None:
    output = tmp_path / "out"
    one, two = archive(tmp_path / "one", {"a": 1}), archive(tmp_path / "one-and-a-half", {"b": 1})
    inline(one, output)
    assert listed(inline(two, output)) == {"new": 1}
    assert listed(inline(two / "b.pdf", output)) == {"done": 1}
    assert {row["presence"] for row in sources(output).values()} == {"present"}


def interrupted(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> Ended:
    """A run that drains itself after so many pages."""
    with monkeypatch.context() as patch:
        received, seen = Run._received, list[int]()

        def counted(run: Run, outcome: Outcome, feed: Feed | None = None) -> None:
            received(run, outcome, feed)
            seen.extend(page for receipt in outcome.receipts for page in receipt.pages)
            if len(seen) >= after:
                run.drain()

        patch.setattr(Run, "_received", counted)
        ended = inline(source, output, source__span_pages=2)
    assert ended.exit_code == ExitCode.INTERRUPTED
    assert ended.summary.pending
    return ended


def test_bytes_that_changed_in_the_middle_end_what_was_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = archive(tmp_path / "in", {"a": 8}), tmp_path / "out"
    interrupted(source, output, monkeypatch, 4)
    assert audit(str(output)).pending == 4
    text_pdf(source / "a.pdf", 1, "another")
    ended = inline(source, output)
    assert ended.exit_code == ExitCode.SOME_FAILED
    assert ended.summary.pending == 0
    result = audit(str(output), [str(source / "a.pdf")])
    assert result.ok, result.problems
    history = pagemill.read(str(output), "pages", history=True).to_pylist()
    assert sorted(row["error_code"] or row["state"] for row in history) == ["SOURCE_CHANGED"] * 4 + ["ok"] * 5
    assert pages(output) == {"a.pdf": ["ok"]}
    assert inline(source, output).summary.status == "nothing_to_do"


def test_an_object_that_vanished_in_the_middle_does_not_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = archive(tmp_path / "in", {"a": 8}), tmp_path / "out"
    interrupted(source, output, monkeypatch, 4)
    (source / "a.pdf").unlink()
    assert inline(source, output).exit_code == ExitCode.SOME_FAILED
    assert pages(output) == {"a.pdf": ["ok"] * 4 + ["SOURCE_UNREADABLE"] * 4}
    result = audit(str(output), [])
    assert result.ok, result.problems
    assert inline(source, output).summary.status == "nothing_to_do"


def test_a_copy_elsewhere_finishes_what_another_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = archive(tmp_path / "in", {"a": 8}), tmp_path / "out"
    interrupted(source, output, monkeypatch, 4)
    os.rename(source / "a.pdf", source / "moved.pdf")
    assert inline(source, output).exit_code == ExitCode.OK
    assert pages(output) == {"a.pdf": ["ok"] * 8}
    assert audit(str(output), [str(source / "moved.pdf")]).ok


def change_before_reading(
    source: Path, name: str, output: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object] | None = None
) -> Ended:
    """A run in which an object changes after it was planned, on a node that has no copy of it."""
    with monkeypatch.context() as patch:
        reading = Run._read_inline

        def changed(run: Run) -> None:
            run._supply.wait()
            while not run._summary.planning_done:
                time.sleep(0.01)
            (change or (lambda path: text_pdf(path, 1, "other bytes")))(source / name)
            shutil.rmtree(f"{output}-cache")
            Path(f"{output}-cache").mkdir()
            reading(run)

        patch.setattr(Run, "_read_inline", changed)
        return inline(source, output)


def test_bytes_that_changed_after_planning_are_never_read_as_the_old_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = archive(tmp_path / "in", {"a": 3, "b": 1}), tmp_path / "out"
    ended = change_before_reading(source, "a.pdf", output, monkeypatch)
    assert ended.exit_code == ExitCode.SOME_FAILED
    assert listed(ended) == {"new": 2, "changed_meanwhile": 1}
    assert pages(output) == {"a.pdf": ["ok"], "b.pdf": ["ok"]}  # what it holds now is another document, read by the same run
    history = pagemill.read(str(output), "pages", history=True).to_pylist()
    assert sorted(row["error_code"] or row["state"] for row in history) == ["SOURCE_CHANGED"] * 3 + ["ok"] * 2
    assert ended.summary.pending == 0
    assert audit(str(output), [str(path) for path in source.iterdir()]).ok
    assert inline(source, output).summary.status == "nothing_to_do"


def test_an_object_that_vanished_after_planning_is_recorded_so_by_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = archive(tmp_path / "in", {"a": 3, "b": 1}), tmp_path / "out"
    ended = change_before_reading(source, "a.pdf", output, monkeypatch, Path.unlink)
    assert ended.exit_code == ExitCode.SOME_FAILED
    assert listed(ended) == {"new": 2, "vanished_meanwhile": 1}
    assert sources(output)["a.pdf"]["presence"] == "vanished"
    assert pages(output) == {"a.pdf": ["SOURCE_UNREADABLE"] * 3, "b.pdf": ["ok"]}
    assert audit(str(output), [str(source / "b.pdf")]).ok
    assert inline(source, output).summary.status == "nothing_to_do"
    text_pdf(source / "a.pdf", 3)  # the same bytes are back: what was not read is read now
    assert inline(source, output).exit_code == ExitCode.OK
    assert pages(output) == {"a.pdf": ["ok"] * 3, "b.pdf": ["ok"]}


def test_an_object_that_cannot_be_read_for_a_while_is_left_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = archive(tmp_path / "in", {"a": 3}), tmp_path / "out"
    reads = DocumentCache._transfer

    def fails(cache: DocumentCache, uri: str, *rest: Any) -> None:
        if os.path.exists(tmp_path / "away"):
            raise SourceUnreadable(f"{uri}: not now")
        reads(cache, uri, *rest)

    monkeypatch.setattr(DocumentCache, "_transfer", fails)
    ended = change_before_reading(source, "a.pdf", output, monkeypatch, lambda _: (tmp_path / "away").touch())
    assert listed(ended) == {"new": 1}  # the object itself is as it was
    assert pages(output) == {"a.pdf": ["SOURCE_UNREADABLE"] * 3}
    (tmp_path / "away").unlink()
    assert inline(source, output).exit_code == ExitCode.OK
    assert pages(output) == {"a.pdf": ["ok"] * 3}


def test_when_bytes_changed_another_uri_that_has_them_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = archive(tmp_path / "in", {"a": 3}), tmp_path / "out"
    shutil.copy(source / "a.pdf", source / "copy.pdf")
    uris = {row.name for row in source.iterdir()}
    ended = change_before_reading(source, "a.pdf", output, monkeypatch)
    assert uris == {"a.pdf", "copy.pdf"}
    assert ended.summary.pages == {"ok": 3}
    assert ended.exit_code == ExitCode.OK


def test_an_unreadable_object_is_a_record_with_its_code_and_tried_three_times(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    (source / "dangling.pdf").symlink_to(tmp_path / "nowhere")
    for tries in (1, 2, 3):
        assert inline(source, output).exit_code == ExitCode.SOME_FAILED
        row = sources(output)["dangling.pdf"]
        assert (row["error_code"], row["tries"]) == ("SOURCE_UNREADABLE", tries)
    assert inline(source, output).summary.status == "nothing_to_do"
    assert audit(str(output), [str(path) for path in source.iterdir()]).ok
    text_pdf(tmp_path / "nowhere", 1)  # the link leads somewhere now
    assert inline(source, output).exit_code == ExitCode.OK
    assert pages(output) == {"a.pdf": ["ok"], "dangling.pdf": ["ok"]}


def test_an_empty_archive_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ended = inline(tmp_path / "in", tmp_path / "out")
    assert (ended.exit_code, ended.summary.status) == (ExitCode.OK, "nothing_to_do")
