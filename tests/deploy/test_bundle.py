"""A bundle for a site without a network: whole, or said to be otherwise."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from jobs import bundle
from pipelines.errors import ConfigError
from tests.conftest import ROOT


def wheel(folder: Path, name: str, version: str) -> Path:
    """The smallest wheel that pip takes."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "x = 1\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: absent\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def made(tmp_path: Path) -> Path:
    wheel(tmp_path / "index", "one", "1.0")
    wheel(tmp_path / "index", "one", "2.0")
    lock = tmp_path / "cpu.lock"
    lock.write_text("one==1.0\n    # via pagemill\nother==3 ; sys_platform == 'win32'\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    folder = tmp_path / "bundle"
    pip = ["--no-index", f"--find-links={tmp_path / 'index'}"]
    for _ in range(2):  # again over itself: the same
        bundle.make(folder, [lock], [tmp_path / "model"], None, pip)
    return folder


def test_it_holds_what_the_lock_pins_and_the_weights(made: Path) -> None:
    files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert files == {"SHA256SUMS", "wheels/one-1.0-py3-none-any.whl", "weights/model/model.safetensors"}
    assert bundle.problems_of(made) == []
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=made, capture_output=True, check=False
    )
    assert done.returncode == 0, done


def test_every_change_on_the_way_is_seen(made: Path, tmp_path: Path) -> None:
    (path,) = made.glob("wheels/*")
    sums = (made / "SHA256SUMS").read_text()

    def after(change: object) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy, symlinks=True)
        change(copy)  # type: ignore[operator]
        return "; ".join(bundle.problems_of(copy))

    name = f"wheels/{path.name}"
    assert after(lambda at: None) == ""
    assert f"{name} has other bytes" in after(lambda at: (at / name).write_bytes(path.read_bytes()[:-1] + b"!"))
    assert f"{name} is missing" in after(lambda at: (at / name).unlink())
    assert "wheels/evil.whl is not in" in after(lambda at: (at / "wheels" / "evil.whl").write_bytes(b""))
    assert "line 1 is no checksum" in after(lambda at: (at / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n"))
    assert "line 3 is no checksum" in after(lambda at: (at / "SHA256SUMS").write_text(sums + "garbage\n"))

    def linked(at: Path) -> None:
        shutil.copy(at / name, tmp_path / "elsewhere")
        (at / name).unlink()
        (at / name).symlink_to(tmp_path / "elsewhere")

    assert f"{name} has other bytes" in after(linked)
    with pytest.raises(ConfigError, match="no bundle"):
        bundle.problems_of(tmp_path / "nothing")


def test_it_writes_over_nothing_else_and_says_what_is_missing(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="no bundle"):
        bundle.make(mine, None, None, None, None)
    lock = tmp_path / "cpu.lock"
    lock.write_text("nowhere-to-be-had==1.0\n")
    with pytest.raises(ConfigError, match="nowhere-to-be-had"):
        bundle.collect_wheels(lock, tmp_path / "wheels", ["--no-index"])
    with pytest.raises(ConfigError, match="no such folder"):
        bundle.make(tmp_path / "b", None, [tmp_path / "absent"], None, None)


def test_an_image_without_docker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="docker is not installed"):
        bundle.make(tmp_path / "b", None, None, ["python:3.11.13-slim-bookworm"], None)


def test_make_bundle_asks_for_what_is_there() -> None:
    told = subprocess.run(
        ["make", "-n", "bundle", "LOCKS=cpu.lock", "MODELS=/m", "IMAGES=i:1"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    assert "jobs.bundle make" in told
    assert "--lock conf/deploy/container/cpu.lock --weights /m --image i:1" in told
    for name in ("cpu.lock", "gpu.lock"):
        assert (ROOT / "conf" / "deploy" / "container" / name).is_file()
        assert name in bundle._PYTHONS
