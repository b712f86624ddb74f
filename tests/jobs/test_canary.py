"""Canaries: that a drift is caught, what is held back from readers of what is published, and how it is let through."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

import pagemill
from jobs.cli import main
from pipelines.canary import Canaries
from pipelines.config import load
from pipelines.errors import ExitCode, SourceUnreadable
from pipelines.ingest import Ended, ingest, reprocess
from pipelines.observe.drift import PageReading, drift
from pipelines.output import open_output
from pipelines.pipeline import Run
from pipelines.recognize.engines import identify
from pipelines.source.cache import DocumentCache
from pipelines.stages import Chain, Site, begin
from pipelines.store.audit import audit
from pipelines.store.choosing import Choice
from pipelines.store.ledger import Ledger
from tests.builders import archive, text_pdf
from tests.conftest import Driver, inline, inline_config
from tests.s3server import S3

READER = {"recognize__engine": "tests.readers:LineReader"}


def night(source: Path, output: Path, canaries: Path, **settings: object) -> Ended:
    config = inline_config(output, canary__documents=canaries, **(READER | settings))
    return ingest(str(source), str(output), config, inline=True, canaries=True)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pagemill", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def canaries(tmp_path: Path) -> Path:
    return archive(tmp_path / "known", {"known": 2, "other": 1})


def texts(output: Path, **how: bool) -> list[str]:
    return sorted(row["markdown"].strip() for row in pagemill.read(str(output), "pages", **how).to_pylist())  # type: ignore[arg-type]


def seen_by_views(output: Path) -> int:
    with duckdb.connect() as con, pagemill.Output(str(output)) as opened:
        pagemill.views(con, opened)
        return int(con.execute("SELECT count(*) FROM pagemill_pages").fetchall()[0][0])


def test_a_drift_is_held_back_until_it_is_published(tmp_path: Path, canaries: Path, call: Callable[..., tuple[int, str]]) -> None:
    source, output = archive(tmp_path / "in", {"a": 2, "b": 1}), tmp_path / "out"
    first = night(source, output, canaries)
    assert (first.exit_code, first.summary.published) == (ExitCode.OK, True)
    assert first.summary.pages == {"ok": 3}  # the canaries are none of the archive's
    assert pagemill.read(str(output), "documents", published=True).num_rows == 2
    assert {Path(row["uri"]).name for row in pagemill.read(str(output), "sources").to_pylist()} == {"a.pdf", "b.pdf"}
    before = texts(output)

    quiet = night(source, output, canaries)  # nothing to read: they do not ride
    assert (quiet.summary.status, quiet.summary.published) == ("nothing_to_do", None)

    # a reader that was altered, a document that changed, and one that is new
    text_pdf(source / "a.pdf", 2, "second edition")
    text_pdf(source / "c.pdf", 1)
    drifted = night(source, output, canaries, recognize__engine="tests.readers:ShoutingReader")
    assert (drifted.exit_code, drifted.summary.published) == (ExitCode.UNPUBLISHED, False)
    assert drifted.summary.canary is not None
    assert any("its text is" in words for words in drifted.summary.canary["drift"])
    assert len(texts(output)) == 4
    assert texts(output, published=True) == before  # the old edition, and no c
    assert texts(output, published=True, history=True) == before
    assert seen_by_views(output) == 3
    names = {Path(row["uri"]).name for row in pagemill.read(str(output), "sources", published=True).to_pylist()}
    assert names == {"a.pdf", "b.pdf"}
    versions = pagemill.read(str(output), "versions", published=True).to_pylist()
    assert [row["version"] for row in versions] == [1, 1]
    result = audit(str(output), [str(path) for path in source.iterdir()])
    assert result.ok, result.problems

    code, out = call("canary", output)
    assert code == 0
    assert f"{drifted.summary.run_id}  NOT PUBLISHED: 3 pages" in out
    assert f"{first.summary.run_id}  published, baseline" in out
    assert call("publish", output, "no-such-run")[0] == ExitCode.BAD_CONFIG
    code, out = call("publish", output, drifted.summary.run_id)
    assert code == 0, out
    assert texts(output, published=True) == texts(output)
    assert seen_by_views(output) == 4
    assert "None" not in call("status", output)[1]  # a publication is a record of its run: the last one still has an end


def test_a_publication_may_set_the_baseline(tmp_path: Path, canaries: Path, call: Callable[..., tuple[int, str]]) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    shouting = {"recognize__engine": "tests.readers:ShoutingReader"}
    night(source, output, canaries)
    text_pdf(source / "b.pdf", 1)
    run = night(source, output, canaries, **shouting)
    assert call("publish", output, run.summary.run_id, "--as-baseline")[0] == 0
    text_pdf(source / "c.pdf", 1)
    after = night(source, output, canaries, **shouting)
    assert (after.exit_code, after.summary.published) == (ExitCode.OK, True)
    assert after.summary.canary is not None
    assert after.summary.canary["similarity"] == 1.0
    text_pdf(source / "d.pdf", 1)
    assert night(source, output, canaries).exit_code == ExitCode.UNPUBLISHED  # back to the old reader is a drift now
    plain = ["--set=recognize.engine=tests.readers:LineReader", "--set=layout.engine=none", "--set=raster.dpi=36", "--inline",
             "--set=raster.engine=pypdfium2", f"--set=source.cache_dir={output}-cache"]  # fmt: skip
    code, out = call("canary", output, "--record", f"--set=canary.documents={canaries}", *plain)
    assert code == 0, out
    text_pdf(source / "e.pdf", 1)
    assert night(source, output, canaries).exit_code == ExitCode.OK


def test_what_rests_on_a_reading_that_is_held_back_is_held_back_too(tmp_path: Path, canaries: Path) -> None:
    """A later reading of one page makes no published document of the drifted others; one of all of them does."""
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    night(source, output, canaries)
    text_pdf(source / "b.pdf", 3)
    drifted = night(source, output, canaries, recognize__engine="tests.readers:ShoutingReader").summary
    config = inline_config(output, **READER)
    for where, seen in (("page_index = 1", 1), (f"run_id = '{drifted.run_id}'", 4)):
        assert reprocess(str(output), Choice(where, None, None), config, inline=True).exit_code == ExitCode.OK
        assert len(texts(output)) == 4
        assert len(texts(output, published=True)) == seen
    assert texts(output, published=True) == texts(output)
    documents = pagemill.read(str(output), "documents", published=True).to_pylist()
    assert sorted(row["revision"] for row in documents) == [1, 3]


def test_a_changed_setting_is_a_drift(tmp_path: Path, canaries: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    night(source, output, canaries, recognize__engine="tests.readers:TokenReader")
    text_pdf(source / "b.pdf", 1)
    found = night(source, output, canaries, recognize__engine="tests.readers:TokenReader", raster__dpi=72).summary
    assert found.published is False
    assert found.canary is not None
    assert found.canary["similarity"] == 1.0
    assert found.canary["tokens"] == [10.0, 20.0]  # the text is the same, and cost twice as much
    assert [words.split(" a page")[0] for words in found.canary["drift"]] == ["tokens"]


def test_a_run_is_not_published_before_its_canaries_are_judged(
    tmp_path: Path, canaries: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., tuple[int, str]]
) -> None:
    """A driver that ends before: what it read stays held back, and can be published."""
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    monkeypatch.setattr(Run, "_judge", lambda *_: None)
    ended = night(source, output, canaries)
    assert ended.summary.published is False
    assert len(texts(output)) == 1
    assert texts(output, published=True) == []
    assert call("publish", output, ended.summary.run_id)[0] == 0
    assert len(texts(output, published=True)) == 1


def test_canaries_that_are_lost_are_a_drift(tmp_path: Path, canaries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    night(source, output, canaries)
    text_pdf(source / "b.pdf", 1)
    use = DocumentCache.use

    def fails(cache: DocumentCache, doc_id: str, uri: str, options: Mapping[str, Any]) -> Any:
        if "/canary/" in uri:
            raise SourceUnreadable(f"{uri}: not now")
        return use(cache, doc_id, uri, options)

    monkeypatch.setattr(DocumentCache, "use", fails)
    ended = night(source, output, canaries)
    assert (ended.exit_code, ended.summary.published, ended.summary.pages) == (ExitCode.UNPUBLISHED, False, {"ok": 1})
    assert ended.summary.canary is not None
    assert "page 1 of known.pdf was ok and is failed" in ended.summary.canary["drift"]
    assert len(texts(output, published=True)) == 1


def test_a_baseline_that_is_gone_is_a_drift(tmp_path: Path, canaries: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    first = night(source, output, canaries)
    (output / "runs" / first.summary.run_id / "canary.json").unlink()
    text_pdf(source / "b.pdf", 1)
    found = night(source, output, canaries).summary
    assert (found.published, found.canary is not None and "is gone" in found.canary["drift"][0]) == (False, True)


def test_every_node_can_fetch_them_from_the_output(tmp_path: Path, canaries: Path, s3: S3) -> None:
    """From a store that the source's options do not open, on a node that has no copy."""
    config = inline_config(tmp_path, canary__documents=canaries, store__storage_options=json.dumps(s3.options()))
    output = s3.bucket() + "/out"
    store = open_output(output, config.store)
    site = Site(config, output, "run", "print", identify(config))
    spans = Canaries(site, store, Ledger(store)).spans()
    elsewhere = inline_config(tmp_path / "other", store__storage_options=json.dumps(s3.options()))
    node = Chain(["rasterize"], dataclasses.replace(site, config=elsewhere))
    works = node.through(begin(spans), {})
    assert [page.error for work in works for page in work.pages] == [None] * 3


@pytest.mark.parametrize("documents", ["empty", "broken", "long"])
def test_what_is_no_canary(tmp_path: Path, documents: str) -> None:
    folder = tmp_path / documents
    folder.mkdir()
    if documents == "broken":
        (folder / "x.pdf").write_bytes(b"%PDF nothing")
    if documents == "long":
        text_pdf(folder / "x.pdf", 51)
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    ended = night(source, output, folder)
    assert ended.exit_code == ExitCode.BAD_CONFIG
    assert "canary.documents" in ended.summary.message
    assert inline(source, output).summary.published is None  # an ingest rides without


def reading(text: str = "the same words", state: str = "ok", tokens: int = 10, crops: int = 5, page: int = 0) -> PageReading:
    return PageReading("d", page, "known.pdf", state, text, tokens, crops)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (reading(), None), (reading("the same word"), None), (reading("other words"), "its text"),
        (reading(state="failed", text=""), "was ok and is failed"), (reading(state="degraded"), None),
        (reading(tokens=12), None), (reading(tokens=13), "tokens a page"), (reading(crops=3), "crops a page"),
        (reading(page=1, text="new"), None),
    ],
)  # fmt: skip
def test_what_counts_as_drift(now: PageReading, said: str | None) -> None:
    then = reading()
    found = drift({then.key: then}, [now], load().canary)
    assert len(found.words) == (said is not None)
    assert said is None or said in found.words[0]


def test_from_no_tokens_to_some_is_a_drift() -> None:
    then = reading(tokens=0)
    assert "tokens" in drift({then.key: then}, [reading(tokens=1)], load().canary).words[0]


def test_the_shipped_canaries_ride_through_ray(driver: Driver, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 3}), tmp_path / "out"
    process = driver.start(str(source), str(output), settings={"ray.workers": 1}, job="nightly")
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0, out
    (report,) = [json.loads(path.read_text()) for path in output.glob("runs/*/report.json")]
    assert (report["published"], report["pages"]) == (True, {"ok": 3})
    (said,) = [json.loads(path.read_text()) for path in output.glob("runs/*/canary.json")]
    assert sorted((page["name"], page["page_index"]) for page in said["pages"]) == [
        ("form-tables.pdf", 0), ("paper-two-columns.pdf", 0), ("paper-two-columns.pdf", 1), ("scan.pdf", 0),
    ]  # fmt: skip
    assert pagemill.read(str(output), "pages", published=True).num_rows == 3
