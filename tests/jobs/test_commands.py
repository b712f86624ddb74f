"""The command line: what each command says, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pagemill
from pipelines.errors import ExitCode
from tests.builders import archive, pdf_bytes, text_pdf
from tests.conftest import ROOT, Call, inline
from tests.s3server import S3


def settings(tmp_path: Path, **more: object) -> list[str]:
    given = {
        "recognize.engine": "echo", "layout.engine": "none", "raster.engine": "pypdfium2", "source.cache_dir": tmp_path / "cache",
    } | {key.replace("__", "."): value for key, value in more.items()}  # fmt: skip
    return [f"--set={key}={value}" for key, value in given.items()]


def words(out: str) -> dict[str, str]:
    return {line[:10].strip(): line[10:].strip() for line in out.splitlines()}


def test_plan_from_nothing_to_nothing_to_do(call: Call, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 3, "b": 1}), tmp_path / "out"
    (source / "web.pdf").write_bytes(b"<html><body>404</body></html>")
    (source / "copy.pdf").write_bytes((source / "a.pdf").read_bytes())
    (source / "_SUCCESS").write_bytes(b"")
    options = settings(tmp_path)
    code, out = call("plan", source, output, *options)
    assert code == 0
    said = words(out)
    total = sum(path.stat().st_size for path in source.iterdir())
    assert said["listed"] == f"4 new; {total} bytes, {total} of them to fetch"
    assert said["skipped"] == "1 dropping"
    assert "--probe" in said["estimate"]
    assert not output.exists()

    said = words(call("plan", source, output, "--probe", *options)[1])
    assert said["probed"] == "4 objects: 4 new pages"  # a copy is counted once
    assert said["unopenable"] == "1 HTML_PAGE"
    assert said["estimate"] == "none for 4 pages: no earlier run measured a rate"
    assert not output.exists()

    assert inline(source, output, source__cache_dir=tmp_path / "cache").exit_code == ExitCode.SOME_FAILED
    text_pdf(source / "later.pdf", 6)
    text_pdf(source / "b.pdf", 2, "changed")
    said = words(call("plan", source, output, "--probe", *options)[1])
    assert said["listed"].startswith("1 changed, 3 done, 1 new; ")
    assert said["documents"] == "2 done (1 failed, 1 ok)"
    assert said["pages"] == "3 done (3 ok), 0 pending, 0 to try again"
    assert said["unopenable"] == "1 HTML_PAGE"
    assert "for 8 pages at the last run's" in said["estimate"]

    inline(source, output, source__cache_dir=tmp_path / "cache")
    said = words(call("plan", source, output, *settings(tmp_path, raster__dpi=72))[1])
    assert said["estimate"] == "nothing to read"
    assert said[""] == "11 of them read with another configuration: they count as done"


def test_plan_counts_what_is_pending(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.source.test_changes import interrupted

    source, output = archive(tmp_path / "in", {"a": 8}), tmp_path / "out"
    interrupted(source, output, monkeypatch, 2)
    pending = 8 - pagemill.read(str(output), "pages").num_rows
    said = words(call("plan", source, output, *settings(tmp_path))[1])
    assert f"{pending} pending" in said["pages"]
    assert f"for {pending} pages" in said["estimate"]
    assert f"{pending} pages" in words(call("status", output)[1])["pending"]
    code, out = call("audit", output)
    assert code == ExitCode.AUDIT_FAILED
    assert "NOT complete" in out


def test_show(call: Call, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"alpha": 3, "beta": 1})
    (source / "broken.pdf").write_bytes(b"<html></html>")
    output = tmp_path / "out"
    inline(source, output)
    code, out = call("show", output, "alpha.pdf")
    assert code == 0
    assert [f"alpha page {n} " in out for n in range(4)] == [True, True, True, False]
    code, out = call("show", output, "alpha.pdf", "--page", 2)
    assert [f"alpha page {n} " in out for n in range(4)] == [False, True, False, False]
    doc_id = next(row["doc_id"] for row in pagemill.read(str(output), "documents").to_pylist() if "beta" in row["uris"][0])
    assert "Document beta" in call("show", output, doc_id[:9])[1]
    for arguments, said in (
        (("alpha.pdf", "--page", 4), "pages are 1 to 3"), (("a.pdf",), "2 documents match"), (("gamma",), "no document matches"),
        (("broken.pdf",), "HTML_PAGE"), (("alpha.pdf", "--page", 0), "--page"),
    ):  # fmt: skip
        code, out = call("show", output, *arguments)
        assert code == ExitCode.BAD_CONFIG
        assert said in out


def test_audit_with_and_without_the_source(call: Call, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 2}), tmp_path / "out"
    inline(source, output)
    assert call("audit", output, "--source", source)[0] == 0
    text_pdf(source / "new.pdf", 1)
    code, out = call("audit", output, "--source", source)
    assert code == ExitCode.AUDIT_FAILED
    assert "NOT READ   " in out
    assert "new.pdf: listed, but has no source record" in out
    assert out.splitlines()[-1].startswith("NOT complete: run ingest again")  # what nobody has read yet is not damage
    assert call("audit", output)[0] == 0
    part = next((output / "pages").iterdir())
    part.write_bytes(part.read_bytes()[:-1])
    code, out = call("audit", output)
    assert code == ExitCode.AUDIT_FAILED
    assert "do not hash" in out


def test_exit_codes_of_what_never_starts(call: Call, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"a": 1})
    options = settings(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "file").write_text("a file")
    newer, lanes, broken = (tmp_path / name for name in ("newer", "lanes", "broken"))
    for folder, mark in ((newer, '{"format": "2.0", "lanes": 1}'), (lanes, '{"format": "1.0", "lanes": 4}'), (broken, "{")):
        folder.mkdir()
        (folder / "pagemill.json").write_text(mark)
    for arguments, code, said in (
        (("ingest", source, tmp_path / "mine", "--inline"), 2, "not empty and not a pagemill output"),
        (("plan", source, tmp_path / "mine"), 2, "not empty and not a pagemill output"),
        (("ingest", source, tmp_path / "file", "--inline"), 2, "is a file"),
        (("ingest", source, newer, "--inline"), 2, "format 2.0"),
        (("ingest", source, lanes, "--inline"), 2, "4 lanes"),
        (("ingest", source, broken, "--inline"), 2, "damaged"),
        (("ingest", source, "/proc/nothing/here", "--inline"), 5, "cannot write"),
        (("ingest", source, tmp_path / "file" / "below", "--inline"), 5, "Not a directory"),
        (("ingest", "", tmp_path / "o3", "--inline"), 2, "the name of the source is empty"),
        (("ingest", source, tmp_path / "o\udcff", "--inline"), 2, "is not UTF-8"),
        (("ingest", source, " ", "--inline"), 2, "the name of the folder for results is empty"),
        (("plan", "", tmp_path / "o3"), 2, "the name of the source is empty"),
        (("ingest", tmp_path / "nowhere", tmp_path / "o1", "--inline"), 4, "no such file or folder"),
        (("ingest", "nosuch://bucket/x", tmp_path / "o2", "--inline"), 2, "nosuch"),
        (("status", tmp_path / "mine"), 2, "not a pagemill output: it has no pagemill.json"),
        (("status", tmp_path / "file"), 2, "not a pagemill output: there is no such folder"),
        (("status", tmp_path / "file" / "below"), 2, "not a pagemill output: there is no such folder"),
        (("status", ""), 2, "the name of the folder for results is empty"),
        (("ingest", source), 2, "Missing argument"),
    ):
        given = options if arguments[0] != "status" and len(arguments) > 2 else []
        ended, out = call(*arguments, *given)
        assert (ended, said in out) == (code, True), (arguments, out)
    assert not (tmp_path / "o3").exists()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_results_that_cannot_be_written_are_said(call: Call, tmp_path: Path) -> None:
    inline(archive(tmp_path / "in", {"a": 1}), output := tmp_path / "out")
    (file := tmp_path / "file").write_text("a file")
    for arguments in (
        ("export", output, file), ("tables", output, file / "below"), ("report", output, "--to", file / "r.html"),
        ("capsule", output, "a.pdf:1", "--to", file / "c.zip"), ("export-sft", output, file / "sft", "--where", "true"),
    ):  # fmt: skip
        code, said = call(*arguments)
        assert (code, "OUTPUT_UNWRITABLE: cannot write " in said) == (ExitCode.OUTPUT_UNWRITABLE, True), (arguments, said)
    assert file.read_text() == "a file"


def test_what_was_not_read_is_said(call: Call, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    for number in range(11):
        (source / f"web-{number}.pdf").write_bytes(b"<html><body>%d</body></html>" % number)
    (source / "dangling.pdf").symlink_to(tmp_path / "nowhere")
    code, out = call("ingest", source, output, "--inline", *settings(tmp_path))
    assert code == ExitCode.SOME_FAILED
    assert "finished: 12 documents (11 failed, 1 ok); 1 pages (1 ok); 1 objects not read (1 SOURCE_UNREADABLE)" in out
    assert out.count("HTML_PAGE") + out.count("  SOURCE_UNREADABLE") == 10
    assert f"... and 2 more: pagemill status {output}, and the report" in out
    said = words(call("status", output)[1])
    assert (said["documents"], said["errors"]) == ("11 failed, 1 ok", "none")
    assert (said["unopened"], said["not read"]) == ("11 HTML_PAGE", "1 SOURCE_UNREADABLE")
    code, out = call("audit", output)
    assert (code, words(out)["sources"]) == (ExitCode.OK, "13, of which 1 could not be fetched")


def test_a_name_that_is_not_utf8_is_found(call: Call, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    os.rename(source / "a.pdf", os.fsencode(source) + b"/b\xff 1.pdf")
    inline(source, output)
    for name in ("b\udcff 1.pdf", "b%FF%201.pdf"):  # as a shell hands it over, and as it is stored
        code, out = call("show", output, name)
        assert (code, "Document a" in out) == (ExitCode.OK, True), out


def test_the_version_is_told(call: Call) -> None:
    from importlib import metadata

    assert call("--version") == (0, f"pagemill {metadata.version('pagemill')}\n")


def test_a_configuration_that_cannot_be_names_what_could(call: Call, tmp_path: Path) -> None:
    (file := tmp_path / "c.yaml").write_text("raster: 5\n")
    (twice := tmp_path / "twice.yaml").write_text("raster:\n  dpi: 100\nray:\n  workers: 1\nraster:\n  dpi: 200\n")
    (merged := tmp_path / "merged.yaml").write_text("raster:\n  <<: {dpi: 100}\n  dpi: 120\n")
    for arguments, said in (
        (("--set", "raster.dpy=1"), "unknown key raster.dpy; did you mean raster.dpi?"),
        (("--set", "rastr.dpi=1"), "unknown section 'rastr'; did you mean raster?"),
        (("--conf", file), "raster: expected `raster: {key: value}`, found int"),
        (("--conf", twice), "'raster' stands here twice at line 5, column 1"),
        (("--conf", "hardware/h10"), "none of that name is shipped; did you mean hardware/h100?"),
        (("--set", "raster.dpi=-3"), "raster.dpi: Input should be greater than or equal to 36 (got -3)"),
    ):
        code, out = call("config", "show", *arguments)
        assert (code, said in out) == (ExitCode.BAD_CONFIG, True), out
    code, out = call("config", "show", "--conf", merged)
    assert (code, "  dpi: 120" in out) == (0, True), out  # what YAML merges in may be said anew


def test_a_model_is_not_compared_without_vllm(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    code, out = call("verify-model", ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny")
    assert (code, "pip install 'pagemill[gpu]', or --constants-only" in out) == (ExitCode.BAD_CONFIG, True), out


def test_an_older_minor_version_is_read_and_written_on(call: Call, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    inline(source, output)
    (output / "pagemill.json").write_text('{"format": "1.99", "lanes": 1}')
    text_pdf(source / "b.pdf", 1)
    assert inline(source, output).exit_code == ExitCode.OK


def test_an_output_is_no_source(tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "in" / "results"
    assert inline(source, output, source__cache_dir=tmp_path / "cache").summary.documents == {"ok": 1}
    again = inline(source, output, source__cache_dir=tmp_path / "cache")
    assert (again.summary.status, again.summary.skipped) == ("nothing_to_do", {"pagemill_output": 1})


def test_a_living_driver_ends_the_second_one(call: Call, tmp_path: Path) -> None:
    from pipelines.output import open_output
    from pipelines.store.ledger import Ledger
    from tests.conftest import inline_config

    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    ledger = Ledger(open_output(str(output), inline_config(output).store))
    ledger.claim("first", 60, 0.1)
    code, out = call("ingest", source, output, "--inline", *settings(tmp_path, claim__stale_after_s=5))
    assert (code, "is writing this output" in out) == (ExitCode.FENCED, True)
    code, out = call("ingest", source, output, "--inline", "--take-over", *settings(tmp_path))
    assert code == 0
    ledger.close()


def test_encrypted_documents(call: Call, tmp_path: Path) -> None:
    import pymupdf

    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    document = pymupdf.open("pdf", pdf_bytes(["secret words"]))
    locked = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="open sesame", owner_pw="own")
    (source / "locked.pdf").write_bytes(locked)
    code, out = call("ingest", source, output, "--inline", *settings(tmp_path))
    assert code == ExitCode.SOME_FAILED
    assert "ENCRYPTED" in out
    states = {row["state"] for row in pagemill.read(str(output), "documents").to_pylist()}
    assert states == {"ok", "encrypted"}
    other = tmp_path / "other"
    code, out = call("ingest", source, other, "--inline", *settings(tmp_path), "--set", "source.passwords=[x, open sesame]")
    assert code == 0
    assert "secret words" in call("show", other, "locked.pdf")[1]
    stored = b"".join(path.read_bytes() for path in other.rglob("*") if path.is_file())
    assert b"sesame" not in stored


def test_doctor(call: Call, tmp_path: Path, s3: S3) -> None:
    options = [*settings(tmp_path), "--no-ray"]
    code, out = call("doctor", "--output", tmp_path / "out", *options)
    assert (code, "all is well" in out) == (0, True), out
    storage = json.dumps(s3.options())
    code, out = call("doctor", "--output", s3.bucket() + "/out", *options, f"--set=store.storage_options={storage}")
    assert (code, "refuses to create an object twice" in out) == (0, True), out
    code, out = call(
        "doctor",
        "--output",
        "s3://no-such-bucket/out",
        *options,
        f"--set=store.storage_options={storage}",
        "--set=store.retries=0",
    )
    assert code == ExitCode.UNHEALTHY
    assert "check endpoint, credentials and bucket" in out
    code, out = call("doctor", *options, "--set=recognize.engine=no.such:Reader")
    assert code == ExitCode.UNHEALTHY
    assert "needs attention: engines" in out


def test_doctor_sees_a_store_that_cannot_fence(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.store.objects import ObjectStore

    def careless(store: ObjectStore, key: str, data: bytes) -> bool:
        store.put(key, data)
        return True

    monkeypatch.setattr(ObjectStore, "put_new", careless)
    code, out = call("doctor", "--output", tmp_path / "out", "--no-ray", *settings(tmp_path))
    assert code == ExitCode.UNHEALTHY
    assert "does not refuse to create an object twice" in out


def test_doctor_runs_a_task_on_the_cluster_or_says_what_to_do(call: Call, tmp_path: Path, ray_address: str) -> None:
    options = [*settings(tmp_path), f"--set=ray.address={ray_address}"]
    code, out = call("doctor", *options)
    (line,) = [line for line in out.splitlines() if line.split()[1:2] == ["ray"]]
    assert code == 0, out
    assert line.startswith("ok ")
    assert f"{ray_address} runs tasks: 8 CPUs, 0 GPUs, 1 nodes" in line
    assert {line.split()[1] for line in out.splitlines() if line.startswith(("ok ", "FAIL"))} >= {
        "python", "disk", "memory", "rasterizer", "engines", "gpu", "ray",
    }  # fmt: skip


def test_doctor_sees_that_no_cluster_answers(tmp_path: Path) -> None:
    """In a process of its own: one that has joined a cluster asks no address."""
    command = [sys.executable, "-m", "jobs.doctor", *settings(tmp_path), "--set=ray.address=127.0.0.1:9"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=500)
    assert done.returncode == ExitCode.UNHEALTHY, done
    assert "needs attention: ray" in done.stdout
    assert "ray.address=127.0.0.1:9" in done.stdout
    assert "is ray.address right?" in done.stdout


@pytest.mark.parametrize("job", ["ingest", "reprocess", "plan", "audit", "status", "show", "doctor", "config"])
def test_each_job_is_a_module_too(job: str) -> None:
    found = subprocess.run([sys.executable, "-m", f"jobs.{job}", "--help"], cwd=ROOT, text=True, capture_output=True, check=False)
    assert found.returncode == 0
    assert "Usage" in found.stdout


def test_reprocess_counts_first(call: Call, tmp_path: Path) -> None:
    settled = tmp_path / "out"
    inline(archive(tmp_path / "in", {"a": 5, "b": 2}), settled)
    options = settings(tmp_path, raster__dpi=36)
    said = words(call("status", settled, *options)[1])
    assert said["other"].startswith("0 pages")
    changed = settings(tmp_path, raster__dpi=50)
    said = words(call("status", settled, *changed)[1])
    assert said["other"].startswith("7 pages, the present configuration is ")
    said = words(call("reprocess", settled, "--where", "fingerprint <> current", "--dry-run", *changed)[1])
    assert said["again"] == "7 pages of 2 documents (7 ok)"
    assert said["read with"] == "0 with the present configuration, 7 with another"
    assert call("reprocess", settled, *options)[0] == ExitCode.BAD_CONFIG
    code, out = call("reprocess", settled, "--where", "stat = 1", *options)
    assert (code, 'stat" not found' in out, '"state"' in out) == (ExitCode.BAD_CONFIG, True, True), out
    for nothing in ("", " ", "true; DROP TABLE x"):
        code, out = call("reprocess", settled, "--where", nothing, *options)
        assert (code, "expected one condition, e.g." in out) == (ExitCode.BAD_CONFIG, True), out
    assert len(list((settled / "runs").iterdir())) == 1  # no run was begun
    code, out = call("reprocess", settled, "--where", "false", "--inline", *options)
    assert (code, "nothing to do: no page" in out) == (ExitCode.OK, True), out
    assert call("reprocess", tmp_path, "--where", "true", *options)[0] == ExitCode.BAD_CONFIG
