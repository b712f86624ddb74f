"""A capsule is read again without the archive that it came from, costs nobody but itself, and does nothing that it asks for."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pymupdf
import pytest

from pipelines.errors import ExitCode
from pipelines.observe import capsule as capsules
from pipelines.observe.capsule import Capsule, open_capsule
from tests.builders import pdf_bytes
from tests.conftest import ROOT, Call, inline
from tests.hostile import billion_laughs


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, Path]:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.pdf").write_bytes(pdf_bytes(["plain words", "please RAISE here", "POISON in it"]))
    return source, tmp_path / "out"


def set_of(tmp_path: Path, **more: object) -> list[str]:
    return [
        f"--set={key.replace('__', '.')}={value}" for key, value in ({"source__cache_dir": tmp_path / "cache"} | more).items()
    ]


def made(call: Call, output: Path, page: str, target: Path, *options: str) -> Capsule:
    code, out = call("capsule", output, page, "--to", target, *options)
    assert code == 0, out
    return open_capsule(target)


def test_a_page_is_read_again_without_its_archive(call: Call, archive: tuple[Path, Path], tmp_path: Path) -> None:
    source, output = archive
    inline(source, output, source__cache_dir=tmp_path / "cache")
    file = tmp_path / "c.zip"
    capsule = made(call, output, "a.pdf:1", file, "--block", "0", *set_of(tmp_path))
    assert capsule.document == (source / "a.pdf").read_bytes()
    assert capsule.page is not None
    assert capsule.crop is not None
    assert capsule.about["versions"]["pypdfium2"]
    assert [question["prompt"] for question in capsule.about["questions"]] == ["OCR:"]
    assert capsule.about["questions"][0]["sampling"]["max_tokens"] == 4096
    for gone in (source, output, tmp_path / "cache"):
        shutil.rmtree(gone)
    code, out = call("replay", file, "--here")
    assert (code, out.splitlines()[-1]) == (0, "state    ok"), out
    assert "text     the same as stored" in out
    assert "reader echo" in out
    alone = tmp_path / "picture.zip"
    capsule.document = None
    capsule.write(alone)
    code, out = call("replay", alone, "--here")
    assert (code, out.splitlines()[-1]) == (0, "state    ok"), out
    assert "without a text layer" in out


def test_an_engine_that_raised_is_named_with_its_traceback(call: Call, archive: tuple[Path, Path], tmp_path: Path) -> None:
    source, output = archive
    inline(source, output, source__cache_dir=tmp_path / "cache", recognize__engine="tests.readers:RaisingReader")
    file = tmp_path / "c.zip"
    capsule = made(call, output, "a.pdf:2", file, *set_of(tmp_path))
    error = capsule.about["error"]
    assert (error["code"], error["stage"]) == ("ENGINE_FAILED", "recognize")
    assert "in _deep_inside" in error["trace"]
    assert error["trace"].rstrip().endswith("ValueError: could not broadcast 3 words")
    code, out = call("replay", file, "--here")
    assert code == ExitCode.BAD_CONFIG
    assert "--set recognize.engine=tests.readers:RaisingReader" in out  # whoever opens it says so himself
    code, out = call("replay", file, "--here", "--set", "recognize.engine=tests.readers:RaisingReader")
    assert code == ExitCode.SOME_FAILED
    assert out.count("in _deep_inside") == 2
    assert "state    failed: ENGINE_FAILED in recognize" in out
    code, out = call("replay", file, "--here", "--set", "recognize.engine=echo")
    assert (code, out.splitlines()[-1]) == (0, "state    ok"), out


def test_a_page_that_ends_its_process_ends_the_replays_child_only(call: Call, archive: tuple[Path, Path], tmp_path: Path) -> None:
    source, output = archive
    inline(source, output, source__cache_dir=tmp_path / "cache")
    file = tmp_path / "c.zip"
    made(call, output, "a.pdf:3", file, *set_of(tmp_path))
    command = [sys.executable, "-m", "jobs.replay", str(file), "--set=recognize.engine=tests.readers:PoisonReader"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == ExitCode.SOME_FAILED, done
    assert done.stdout.splitlines()[-1] == "state    the process that read it ended with SIGKILL"


def test_a_page_that_ends_the_rasterizer_ends_its_child_only(call: Call, tmp_path: Path) -> None:
    """It hangs, and is killed from outside as a crash would: each time a process of its own is gone, and the reason is said."""
    source, output, file = tmp_path / "in", tmp_path / "out", tmp_path / "c.zip"
    source.mkdir()
    (source / "laughs.pdf").write_bytes(billion_laughs(30))
    inline(source, output, source__cache_dir=tmp_path / "cache", raster__engine="pymupdf", raster__deadline_s=1)
    capsule = made(call, output, "laughs.pdf:1", file, *set_of(tmp_path))
    assert capsule.about["error"]["code"] == "PAGE_TIMEOUT"
    assert (capsule.page, capsule.document) == (None, (source / "laughs.pdf").read_bytes())
    code, out = call("replay", file, "--here", "--set=raster.deadline_s=1")
    assert (code, "PAGE_TIMEOUT in rasterize" in out) == (ExitCode.SOME_FAILED, True), out

    def crash() -> None:
        ready: dict[int, float] = {}
        until = time.monotonic() + 120
        while time.monotonic() < until:
            for child in psutil.Process().children():
                if "pipelines.raster.child" in child.cmdline() and child.rlimit(psutil.RLIMIT_AS)[0] != psutil.RLIM_INFINITY:
                    spent = child.cpu_times().user  # it has limited itself, so it is ready; what it spends now is drawing
                    if spent - ready.setdefault(child.pid, spent) > 0.5:
                        child.kill()
                        return
            time.sleep(0.05)

    killer = threading.Thread(target=crash)
    killer.start()
    code, out = call("replay", file, "--here", "--set=raster.deadline_s=200")
    killer.join()
    assert (code, "PAGE_CRASH in rasterize" in out) == (ExitCode.SOME_FAILED, True), out
    assert "signal 9" in out


def test_an_encrypted_document_stays_encrypted(call: Call, tmp_path: Path) -> None:
    source, output, file = tmp_path / "in", tmp_path / "out", tmp_path / "c.zip"
    source.mkdir()
    document = pymupdf.open("pdf", pdf_bytes(["secret words"]))
    locked = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="zqSec-opens", owner_pw="zqSec-own")
    (source / "locked.pdf").write_bytes(locked)
    word = {"source__passwords": "[zqSec-opens]"}
    inline(source, output, source__cache_dir=tmp_path / "cache", **word)
    made(call, output, "locked.pdf:1", file, *set_of(tmp_path, **word))
    with zipfile.ZipFile(file) as held:
        assert not [name for name in held.namelist() if b"zqSec" in held.read(name)]
    code, out = call("replay", file, "--here")
    assert (code, "ENCRYPTED" in out) == (ExitCode.SOME_FAILED, True), out
    code, out = call("replay", file, "--here", "--set=source.passwords=[zqSec-opens]")
    assert code == 0, out


def test_what_cannot_be_had_is_said(call: Call, archive: tuple[Path, Path], tmp_path: Path) -> None:
    source, output = archive
    inline(source, output, source__cache_dir=tmp_path / "cache")
    shutil.rmtree(source)
    capsule = made(call, output, "a.pdf:1", tmp_path / "c.zip", *set_of(tmp_path, source__cache_dir=tmp_path / "other"))
    assert (capsule.document, capsule.page) == (None, None)
    assert "cannot be had" in " ".join(capsule.about["notes"])
    code, out = call("replay", tmp_path / "c.zip", "--here")
    assert (code, "neither the document nor a picture" in out) == (ExitCode.BAD_CONFIG, True), out
    for arguments, said in (
        (("a.pdf:9",), "no such page"),
        (("a.pdf:1-2",), "one page"),
        (("a.pdf:1", "--block", 99), "--block 99"),
    ):
        code, out = call("capsule", output, *arguments, "--to", tmp_path / "no.zip", *set_of(tmp_path))
        assert (code, said in out) == (ExitCode.BAD_CONFIG, True), out
    capsule = made(call, output, "a.pdf:1", tmp_path / "d.zip", "--most-mib", "0", *set_of(tmp_path))
    assert capsule.document is None
    assert "left out" in " ".join(capsule.about["notes"])


def test_a_strangers_capsule_names_no_code_no_server_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "recognize": {"engine": "evil:Reader", "text_layer": "off", "nonsense": 1}, "layout": {"engine": "evil:Layout"},
        "vllm": {"engine_args": {"trust_remote_code": True}, "model_dir": "s3://evil/model", "dtype": "float16"},
        "server": {"url": "http://evil/", "model": "m"}, "source": {"cache_dir": "/"}, "raster": {"dpi": 99}, "evil": {"a": 1},
    }  # fmt: skip
    row = {"page_index": 0, "doc_id": "x"}
    capsule = Capsule({"format": "1.0", "row": row, "options": options}, b"document")
    file = tmp_path / "c.zip"
    capsule.write(file)
    assert open_capsule(file).settings() == {
        "recognize": {"text_layer": "off"}, "vllm": {"dtype": "float16"}, "server": {"model": "m"}, "raster": {"dpi": 99},
    }  # fmt: skip
    assert open_capsule(file).brought_engines() == ["layout.engine=evil:Layout", "recognize.engine=evil:Reader"]
    with zipfile.ZipFile(file, "a") as held:
        held.writestr("../../escaped", b"x")
        held.writestr("pickle.pkl", pickle.dumps(print))
    assert open_capsule(file).document == b"document"
    assert not (tmp_path.parent / "escaped").exists()
    monkeypatch.setitem(capsules._MOST, "document", 3)
    for name, data in (("bomb.zip", file.read_bytes()), ("not.zip", b"no zip"), ("empty.zip", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(capsules.ConfigError, match="no capsule"):
            open_capsule(path)
    for member in ("row", "options"):
        with zipfile.ZipFile(path, "w") as held:
            held.writestr("capsule.json", json.dumps({"format": "1.0", "row": row, "options": {}} | {member: []}))
        with pytest.raises(capsules.ConfigError, match=f"no capsule: .*{member}"):
            open_capsule(path)
    newer = tmp_path / "newer.zip"
    with zipfile.ZipFile(newer, "w") as held:
        held.writestr("capsule.json", json.dumps({"format": "2.0", "row": row, "options": {}}))
    with pytest.raises(capsules.ConfigError, match=r"format 2\.0"):
        open_capsule(newer)
