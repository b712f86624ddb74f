"""Garbage collection deletes what nothing names, and nothing else: beside a driver, cut off anywhere, by the store's clock."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pagemill
from jobs.cli import app
from pipelines.books import span_record
from pipelines.errors import Fenced, StoreUnavailable
from pipelines.schema import Block, Box, Figure, Span
from pipelines.stages import begin
from pipelines.store.audit import audit
from pipelines.store.garbage import Collected, Collector, Garbage
from pipelines.store.inventory import Inventory
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import PartWriter, document_folder
from tests.builders import archive
from tests.conftest import inline
from tests.s3server import S3
from tests.store.made import A, B, Made
from tests.store.test_compact import compacted, cut_off_at, rows

_DAY = 86_400.0


def collected(output: Path | str, keep: int | None = None, store: ObjectStore | None = None, older: float = _DAY) -> Collected:
    store = store or ObjectStore(str(output))
    ledger = Ledger(store, merge_every=3)
    collector = Collector(store, [ledger], older, keep)
    try:
        ledger.claim("gc", stale_after_s=0.5, beat_s=60)
        try:
            return collector.collect(collector.find())
        finally:
            ledger.release()
    finally:
        ledger.close()


def found(output: Path | str, keep: int | None = None) -> list[Garbage]:
    store = ObjectStore(str(output))
    ledger = Ledger(store)
    ledger.refresh()
    garbage = Collector(store, [ledger], _DAY, keep).find()
    ledger.close()
    return garbage


def test_without_the_stores_clock_nothing_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes an object and does not say when: by this machine's clock, orphans of now could look a day old."""
    assert inline(archive(tmp_path / "in", {"a": 2}), tmp_path / "out").exit_code == 0
    monkeypatch.setattr(Inventory, "modified", lambda *_: None)
    with pytest.raises(StoreUnavailable, match="does not say when"):
        found(tmp_path / "out")


def grow_old(output: Path, days: float = 2) -> None:
    """All that is stored now was put so many days ago."""
    at = time.time() - days * _DAY
    for path in output.rglob("*"):
        if path.is_file() and "ledger" not in path.parts:
            os.utime(path, (at, at))


def litter(output: Path) -> dict[str, Path]:
    """One object of each kind that nothing names."""
    folder = output / document_folder(A)
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "orphan part": output / "pages" / f"part-{'0' * 64}.parquet",
        "markdown": folder / f"{'1' * 64}.md",
        "image": folder / f"{'2' * 64}.png",
        "plan of an ended run": output / "runs" / "20200101T000000Z-aaaaaa" / "plan" / "0000" / "00000001.parquet",
        "unfinished file": output / "pages" / ".pagemill-tmp-0123",
    }
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"litter")
    return made


def test_each_kind_goes_when_it_is_a_day_old_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "out"
    inline(archive(tmp_path / "in", {"a": 9, "b": 1}), output, source__span_pages=2)
    before = rows(output)
    grow_old(output)
    young = litter(output)
    collected(output)
    assert all(path.exists() for path in young.values()), "what is younger than a day was deleted"
    grow_old(output)
    kept = {path for path in output.rglob("*") if path.is_file()} - set(young.values())
    done = collected(output)
    assert {kind for kind, count in done.count.items() if count} == set(young)
    assert not any(path.exists() for path in young.values())
    assert {path for path in kept if not path.exists() and "plan" not in path.parts} == set()
    assert rows(output) == before
    assert audit(str(output)).ok


def test_merged_parts_go_a_day_after_they_were_merged(tmp_path: Path) -> None:
    output = tmp_path / "out"
    inline(archive(tmp_path / "in", {"a": 9, "b": 9}), output, source__span_pages=2)
    before = rows(output)
    grow_old(output)
    merged = compacted(output).parts
    assert collected(output).count["compacted part"] == 0, "a reader that opened just before would have lost its parts"
    grow_old(output)
    assert collected(output).count["compacted part"] == merged
    assert rows(output) == before
    assert rows(output, history=True) == [row | {"is_live": True} for row in before]
    assert audit(str(output)).ok
    assert audit(str(output)).orphans == 0


def test_never_beside_a_living_driver(tmp_path: Path) -> None:
    output = tmp_path / "out"
    litter(output)
    grow_old(output)
    driver = Ledger(ObjectStore(str(output)))
    driver.claim("driver", stale_after_s=0.5, beat_s=0.05)
    with pytest.raises(Fenced):
        collected(output)
    assert len(found(output)) == 5  # a dry run needs no claim
    driver.release()
    driver.close()
    assert sum(collected(output).count.values()) == 5


def test_a_driver_that_takes_over_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.store.garbage._BATCH", 2)
    output = tmp_path / "out"
    made = Made(output)
    made.ledger.release()
    litter(output)
    grow_old(output)
    store = ObjectStore(made.root)
    ledger, driver = Ledger(store), Ledger(store)
    ledger.claim("gc", 0.5, 60)
    collector = Collector(store, [ledger], _DAY, None)
    garbage = collector.find()
    driver.claim("driver", 0.5, 60, take_over=True)
    with pytest.raises(Fenced):
        collector.collect(garbage)
    assert len(found(output)) == 5
    ledger.close()
    driver.close()


def test_what_is_put_again_meanwhile_stays(tmp_path: Path) -> None:
    output = tmp_path / "out"
    made = Made(output)
    made.ledger.release()
    old = litter(output)
    grow_old(output)
    store = ObjectStore(made.root)
    ledger = Ledger(store)
    ledger.claim("gc", 0.5, 60)
    collector = Collector(store, [ledger], _DAY, None)
    garbage = collector.find()
    store.put(old["image"].relative_to(output).as_posix(), b"litter")  # a driver writes the same image again
    done = collector.collect(garbage)
    assert old["image"].exists()
    assert (done.touched, sum(done.count.values())) == (1, 4)
    ledger.release()
    ledger.close()


def with_figure(made: Made, doc_id: str, revision: int, page: int, data: bytes, commit: bool, cell: bool = False) -> str:
    (work,) = begin([Span(doc_id, revision, (page,), "uri", 3, "pdf")])
    name = f"{hashlib.sha256(data).hexdigest()}.png"
    work.pages[0].figures = [Figure(name, data)]
    if cell:
        html = f'<table><tr><td><img src="{name}" alt="Image" /></td></tr></table>'
        work.pages[0].blocks = [Block("table", Box(0, 0, 9, 9), "", "pixels", "e", "", html=html)]
    else:
        work.pages[0].blocks = [Block("figure", Box(0, 0, 9, 9), "", "none", "e", "", image=name)]
    receipts = PartWriter(made.store, "run", "print").write([work])
    if commit:
        made.commit(*[span_record(receipt, "run") for receipt in receipts])
    return f"{document_folder(doc_id)}/{name}"


@pytest.mark.parametrize("cell", [False, True], ids=["a figure", "a figure in a table"])
def test_images_stay_while_a_row_shows_them(tmp_path: Path, cell: bool) -> None:
    made = Made(tmp_path / "out")
    made.opened(A, 1, [0, 1])
    shown = with_figure(made, A, 1, 0, b"shown", commit=True, cell=cell)
    made.span(A, 1, (1,), "text")
    orphan = with_figure(made, A, 1, 1, b"orphan", commit=False)
    made.complete(A, 1, 2)
    made.ledger.release()
    grow_old(tmp_path / "out")
    assert {entry.key for entry in found(made.root) if entry.kind == "image"} == {orphan}
    assert collected(made.root).count["image"] == 1
    assert made.store.exists(shown)
    made.store.delete(shown)
    assert any(shown.rpartition("/")[2] in problem for problem in audit(made.root).problems)


def test_superseded_readings_go_when_told_and_history_says_what_is_left(tmp_path: Path) -> None:
    output = tmp_path / "out"
    made = Made(output)
    made.source("/a.pdf", A, format="pdf", page_count=2)
    made.opened(A, 1, [0, 1])
    made.span(A, 1, (0,), "first")
    made.span(A, 1, (1,), "first")
    made.complete(A, 1, 2)
    for revision, text in ((2, "second"), (3, "third")):
        made.opened(A, revision, [0])
        made.span(A, revision, (0,), text)
        made.complete(A, revision, 2)
    made.opened(A, 4, [0, 1])
    made.span(A, 4, (1,), "under way")
    made.source("/b.pdf", B, format="pdf", page_count=2)
    made.opened(B, 1, [0, 1])
    made.span(B, 1, (0,), "half")
    made.ledger.release()
    grow_old(output)
    live = made.markdown()
    assert live == {("a", 0): "third 0", ("a", 1): "first 1", ("b", 0): "half 0"}

    def texts() -> set[str]:
        return set(pagemill.read(made.root, "pages", history=True)["markdown"].to_pylist())

    everything = {"first 0", "first 1", "second 0", "third 0", "under way 1", "half 0"}
    assert texts() == everything
    assert not [entry for entry in found(made.root) if "part" in entry.kind]
    # as of revision 2 page 1 is the first reading's, so it stays; page 0 of revision 1 is seen by neither
    assert collected(made.root, keep=2).count["superseded part"] == 1
    assert texts() == everything - {"first 0"}
    assert collected(made.root, keep=1).count["superseded part"] == 1
    assert texts() == everything - {"first 0", "second 0"}
    assert made.markdown() == live
    assert not audit(made.root).problems


# each look afterwards opens the output and audits it: in make test after every third write
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 3])
def test_cut_off_at_every_write_and_deletion_it_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    output = tmp_path / "out"
    made = Made(output)
    made.source("/a.pdf", A, format="pdf", page_count=2)
    for revision in (1, 2):
        made.opened(A, revision, [0, 1])
        made.span(A, revision, (0,), f"reading {revision} of")
        made.span(A, revision, (1,), f"reading {revision} of")
        made.complete(A, revision, 2)
    made.ledger.release()
    litter(output)
    grow_old(output)
    live = made.markdown()
    step = 1 - every
    while cut_off_at(step := step + every, monkeypatch, lambda: collected(output, keep=1)):
        assert made.markdown() == live, f"after write {step - 1}"
        history = set(pagemill.read(made.root, "pages", history=True)["markdown"].to_pylist())
        assert set(live.values()) <= history
        assert audit(made.root).ok
    assert step > 8
    assert not found(output, keep=1)
    assert made.markdown() == live


def test_the_command_says_what_it_would_delete(tmp_path: Path) -> None:
    output = tmp_path / "out"
    made = Made(output)
    made.ledger.release()
    made.ledger.close()
    paths = litter(output)
    grow_old(output)
    dry = CliRunner().invoke(app, ["gc", str(output), "--dry-run"])
    assert dry.exit_code == 0
    assert "1 x orphan part" in dry.output
    assert all(path.exists() for path in paths.values())
    assert CliRunner().invoke(app, ["gc", str(output)]).exit_code == 0
    assert not any(path.exists() for path in paths.values())
    assert "nothing" in CliRunner().invoke(app, ["gc", str(output), "--dry-run"]).output
    assert "left      0 small parts" in CliRunner().invoke(app, ["compact", str(output)]).output


def test_on_s3_with_uploads_that_were_never_ended(s3: S3) -> None:
    import boto3

    bucket = s3.bucket()
    options = s3.options()
    client = boto3.client("s3", endpoint_url=s3.endpoint, aws_access_key_id="test", aws_secret_access_key="test")
    name = bucket.removeprefix("s3://")
    store = ObjectStore(f"{bucket}/out", options)
    for upload in ("out/pages/part-x.parquet", "elsewhere/y"):
        client.create_multipart_upload(Bucket=name, Key=upload)
    store.put("pages/part-orphan.parquet", b"litter")
    store.put("markdown/ab/cd/x.png", b"litter")
    # the test server says of every upload that it began in 2010
    assert dict(collected("", None, store, older=_DAY).count) == {"unfinished upload": 1}
    done = collected("", None, store, older=-_DAY)  # as if a day had passed
    assert dict(done.count) == {"orphan part": 1, "image": 1}
    left = client.list_multipart_uploads(Bucket=name)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/y"]
    assert not list(store.list("pages"))
