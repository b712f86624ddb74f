"""No name leads out of its place: of a document, a figure, a model's file, a run, or of an output that somebody made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError, DamagedOutput, ExitCode
from pipelines.export.documents import Exported
from pipelines.output import is_run_id, open_output
from pipelines.recognize import model_dir
from pipelines.schema import Figure, PageWork, Span, SpanWork
from pipelines.source.cache import DocumentCache
from pipelines.source.remote import ObjectInfo, Page, RemoteSource
from pipelines.store.filesystem import private_folder
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import PartWriter
from pipelines.store.records import record
from tests.builders import archive
from tests.conftest import Call, inline, inline_config

OUTSIDE = ("../x", "a/../../x", "..", "/etc/passwd", "a/..", "x\0y")


def test_no_key_leads_out_of_an_output(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path / "out"))
    store.put("a/..b/...", b"dots alone are names")
    assert store.get("a/..b/...") == b"dots alone are names"
    (tmp_path / "x").write_bytes(b"outside")
    for key in OUTSIDE:
        for verb in (store.get, store.exists, store.size, store.delete, store.local_path):
            with pytest.raises(DamagedOutput, match="leads out"):
                verb(key)
        for write in (store.put, store.put_new):
            with pytest.raises(DamagedOutput, match="leads out"):
                write(key, b"")
    assert (tmp_path / "x").read_bytes() == b"outside"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "x"}


def test_a_figure_stays_beside_its_document(tmp_path: Path) -> None:
    """Names of figures come from a reader, which a user may bring."""
    span = Span("ab" * 32, 1, (0,), "/in/a.pdf", 1, "pdf")
    page = PageWork(span.doc_id, 0, figures=[Figure("../../../../evil.png", b"")])
    with pytest.raises(DamagedOutput):
        PartWriter(ObjectStore(str(tmp_path / "out")), "run", "f" * 16).write([SpanWork(span, "attempt", [page])])
    assert not list(tmp_path.rglob("*.png"))


NAMES = [
    "/in/../../evil.pdf", "s3://b/..", "s3://b/.", "/in/-rf.pdf", "/in/a\nb.pdf", "C:\\x\\..\\y.pdf", "/in/.bashrc", "/in/a\0b",
    "/in/ .pdf", "s3://b/x/%2e%2e%2fy.pdf", "/in/CON.pdf", f"/in/{'ä' * 300}.pdf", "/in/$(touch x);`id`|&.pdf",
    "https://h/a.pdf?x=/../..",
]  # fmt: skip


@given(st.one_of(st.sampled_from(NAMES), st.text(max_size=60)))
def test_a_documents_folder_in_an_export_is_one_plain_name(uri: str) -> None:
    folder = Exported("ab" * 32, uri, "pdf", 1, []).folder
    assert os.path.basename(folder) == folder
    assert not folder.startswith((".", "-rf.pdf"))
    assert not set(folder) & set("\0\n\r\x1b/\\:;|&$`<>\"'*?%")
    assert len(os.fsencode(folder)) < 255


def made_up(output: Path, source: Path, secret: Path) -> None:
    """An output whose ledger names files outside it, as somebody might hand it on."""
    config = inline_config(output)
    ledger = Ledger(open_output(str(output), config.store))
    ledger.claim("made-up", 1, 1)
    up = f"../../../../../../../../../..{secret}"
    doc, other, third = (digit * 64 for digit in "abc")
    common = {"revision": 1, "run_id": "../../escaped"}
    span = {"pages": [0], "states": ["ok"], "codes": [""], "tries": 1, "attempt": "x"}
    done = {"state": "ok", "page_count": 1, "ok": 1, "blank": 0, "degraded": 0, "failed": 0, "retryable": 0}
    records = [record("run", run_id="../../escaped", summary="{}")]
    for doc_id, part, markdown in ((doc, "pages/part-none.parquet", up), (other, up, None), (f"../../{third[:58]}", up, up)):
        uri = f"{source}/{doc_id[-3:]}.pdf"
        records += [
            record("source", uri=uri, size=1, presence="present", doc_id=doc_id, format="pdf", page_count=1, run_id="r"),
            record("revision", doc_id=doc_id, pages=[0], fingerprint="f", **common),
            record("span", doc_id=doc_id, part=part, **span, **common),
            record("document", doc_id=doc_id, markdown=markdown, **done, **common),
        ]
    ledger.append(records)
    ledger.release()
    ledger.close()


def test_an_output_of_somebody_else_shows_and_writes_no_other_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, secret = archive(tmp_path / "in", {"a": 1}), tmp_path / "out", tmp_path / "secret.txt"
    secret.write_text("the words of another file")
    made_up(output, source, secret)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    cache = f"--set=source.cache_dir={tmp_path / 'cache'}"
    said = ""
    for arguments in (
        ("show", output, "a" * 64), ("show", output, "b" * 64), ("show", output, "aaa.pdf"), ("report", output, cache),
        ("report", output, "--run", "../../escaped"), ("report", output, "--page", f"{'b' * 64}:1", "--to", "r.html", cache),
        ("diff", output, "../../escaped", "../../escaped"), ("export", output, "exported"), ("tables", output, "tables"),
        ("audit", output),
    ):  # fmt: skip
        code, out = call(*arguments)
        assert code in (ExitCode.AUDIT_FAILED, ExitCode.BAD_CONFIG, ExitCode.BUG, ExitCode.OK), (arguments, out)
        said += out
    assert "another file" not in said
    assert said.count("leads out of") >= 4
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(here) or path.is_relative_to(tmp_path / "cache") for path in new), new
    assert not any(b"another file" in path.read_bytes() for path in new)


def test_run_ids() -> None:
    assert is_run_id("20261124T170301Z-5f2a1c")
    assert not any(map(is_run_id, ("", ".", "..", "../x", "a/b", "/x", "a\n", "x" * 200, ".hidden")))


def test_a_models_files_stay_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of a bucket may hold `..`; a file system obeys it."""
    for key in ("../../evil.txt", "/evil.txt"):
        found = [ObjectInfo(f"s3://bucket/model/{name}", 1, "e") for name in ("config.json", key)]
        monkeypatch.setattr(RemoteSource, "pages", lambda self, folder, found=found: iter([Page([], found)]))
        monkeypatch.setattr(RemoteSource, "fetch", lambda self, path, file: Path(file).write_bytes(b"x"))
        with pytest.raises(ConfigError, match="leads out"):
            model_dir.locate("s3://bucket/model", {"key": "k", "secret": "s"}, tmp_path / "cache")
        assert not list(tmp_path.rglob("evil.txt"))


def test_the_nodes_cache_knows_digests_only_and_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DocumentCache(tmp_path / "cache", 1)
    for doc_id in ("../../etc/passwd", "/etc/passwd", "A" * 64, "a" * 63):
        with pytest.raises(DamagedOutput), cache.use(doc_id, "/in/a.pdf", {}):
            pass
        with pytest.raises(DamagedOutput):
            cache.budget_path(doc_id)
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="alone"):
        private_folder(folder)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    with pytest.raises(ConfigError, match="alone"):
        private_folder(tmp_path / "link")
    private_folder(tmp_path / "mine")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match="alone"):
        private_folder(tmp_path / "mine")


def test_names_of_documents_reach_no_terminal_and_no_spreadsheet_as_commands(call: Call, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("\x1b]0;owned\x07.pdf", "a\nPROBLEM forged.pdf", "\u202efdp.exe", "$(touch owned).pdf"):
        (source / name).write_bytes(b"<html>no document</html>")
    ended = inline(source, output)
    from pipelines.observe.report import final_line

    said = final_line(ended.summary, ended.exit_code, ended.report)
    code, out = call("audit", output, "--source", source)
    assert code == 0
    (source / "late\x1b[2J.pdf").write_bytes(b"x")
    code, more = call("audit", output, "--source", source)
    assert code == ExitCode.AUDIT_FAILED
    assert "late\\x1b[2J.pdf" in more
    for text in (said, out, more):
        assert not set(text) & set("\x1b\x07\u202e")
        assert not any(line.startswith("PROBLEM forged") for line in text.splitlines())
