"""P2 on disks that fill up: the output's, a node's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import pagemill
from pipelines.errors import ExitCode
from tests.builders import archive, pdf_bytes
from tests.conftest import Driver, inline
from tests.faults.disks import SmallDisk
from tests.faults.harness import PAGES, SLOW, ends_like, read_pages
from tests.readers import hurried

Disks = Callable[[str, int], SmallDisk]


def test_the_output_is_full(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path, small_disk: Disks) -> None:
    """The run ends soon after, says so, and keeps what it has; with more room the next one goes on."""
    disk = small_disk("disk", 400)
    output = str(disk.path / "out")
    code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 5, out
    assert "No space left on device" in out
    assert "Traceback" not in out
    disk.grow(64)
    kept = pagemill.read(output, "pages").num_rows
    assert 0 < kept < PAGES
    assert not list(disk.path.rglob(".pagemill-tmp-*"))  # nothing half written stays
    with hurried():
        code, out = driver.run(str(source), output, settings=SLOW | {"ray.workers": 1})
    assert code == 0, out
    ends_like(undisturbed, output, source)


def test_the_cache_is_full(tmp_path: Path, small_disk: Disks) -> None:
    """A document for which its node has no room is tried again by later runs; the others are read."""
    source, disk = archive(tmp_path / "in", {"a": 2, "b": 1}), small_disk("cache", 256)
    (source / "large.pdf").write_bytes(pdf_bytes(["page"], extra=b"%" + b"x" * (400 << 10) + b"\n"))
    ended = inline(source, tmp_path / "out", source__cache_dir=disk.path)
    assert ended.exit_code == ExitCode.SOME_FAILED
    (failed,) = [row for row in pagemill.read(str(tmp_path / "out"), "sources").to_pylist() if row["error_code"]]
    assert failed["error_code"] == "SOURCE_UNREADABLE"
    assert "no room for the document" in failed["error_message"]
    disk.grow(16)
    assert inline(source, tmp_path / "out", source__cache_dir=disk.path).exit_code == ExitCode.OK
    assert inline(source, tmp_path / "whole").exit_code == ExitCode.OK
    whole = pagemill.read(str(tmp_path / "whole"), "pages").num_rows
    assert pagemill.read(str(tmp_path / "out"), "pages").num_rows == whole == 4


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("room_for", ["a page", "nothing"])
def test_the_disk_that_ray_spills_to_is_full(
    tmp_path: Path, small_disk: Disks, monkeypatch: pytest.MonkeyPatch, room_for: str
) -> None:
    """Blocks of 85 MiB, or pages of 130, go from pool to pool through a store of 80; none is blamed for what does not fit."""
    # the first blocks are of 1, 2, 4 and 8 pages: one of 16 comes after 15
    sizes = {"a": 40, "b": 3} if room_for == "a page" else {"a": 2}
    source, output, disk = archive(tmp_path / "in", sizes), str(tmp_path / "out"), small_disk("disk", 40 << 10)
    if room_for == "nothing":
        (source / "a.pdf").write_bytes((source / "a.pdf").read_bytes().replace(b"[0 0 300 200]", b"[0 0 990 660]"))
    driver = Driver("null", tmp_path / "cache")
    monkeypatch.setenv("RAY_object_spilling_directory", str(disk.path))
    settings = {
        "ray.fuse": "false", "ray.object_store_mib": 80, "source.span_pages": 16,
        "raster.dpi": 400 if room_for == "a page" else 600, "raster.max_megapixels": 100,
    }  # fmt: skip
    code, out = driver.run(str(source), output, settings=settings)
    assert "Ray's object store is full, and so is the disk" in out
    if room_for == "a page":
        assert code == 0, out
    else:  # a page alone is larger than the store
        assert (code, "CLUSTER_LOST" in out) == (7, True), out
        assert not pagemill.read(output, "pages").num_rows
        settings |= {"ray.object_store_mib": 1024, "source.span_pages": 1}
        code, out = driver.run(str(source), output, settings=settings)
        assert code == 0, out
    same = {key.replace(".", "__"): value for key, value in settings.items() if key.startswith("raster.")}
    assert inline(source, tmp_path / "whole", raster__engine="pymupdf", **same).exit_code == ExitCode.OK
    ends_like(read_pages(str(tmp_path / "whole")), output, source)
