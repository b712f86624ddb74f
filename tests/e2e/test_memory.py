"""P4: a run over many documents takes the same memory from its first tenth to its end. Through Ray."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from pipelines.store.audit import audit
from tests.builders import text_pdf
from tests.conftest import Driver

_MIB = 1 << 20


def pss_of(process: psutil.Process) -> int:
    """Its memory, shared pages divided among those who share them; 0 when it has ended."""
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def workers() -> list[psutil.Process]:
    """The session's cluster's processes that hold pagemill's stages, with their children."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if words.startswith("ray::") or "pipelines.raster.child" in words:
                found.append(process)
    return found


def measured(process: subprocess.Popen[str], output: Path, every_s: float) -> list[tuple[int, int]]:
    """(parts written, bytes of the driver, its workers and their children) until the run ends."""
    driver, found = psutil.Process(process.pid), []
    while process.poll() is None:
        parts = len(list((output / "pages").glob("*.parquet"))) if (output / "pages").is_dir() else 0
        if parts:
            with contextlib.suppress(psutil.Error):
                tree = {each.pid: each for each in [driver, *driver.children(recursive=True), *workers()]}
                found.append((parts, sum(pss_of(each) for each in tree.values())))
        time.sleep(every_s)
    return found


def stays_flat(driver: Driver, folder: Path, documents: int, every_s: float, timeout: float) -> None:
    source, output = folder / "in", folder / "out"
    for number in range(documents):
        text_pdf(source / f"{number % 100:02d}" / f"{number}.pdf", 1, f"number {number}")
    process = driver.start(str(source), str(output), settings={"store.commit_every_s": 1})
    samples = measured(process, output, every_s)
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    result = audit(str(output))
    assert (result.ok, result.pages) == (True, documents), result.problems
    whole = samples[-1][0]
    early = [size for parts, size in samples if parts <= whole * 0.2]
    late = [size for parts, size in samples if parts >= whole * 0.8]
    print(f"{documents} documents: {max(early) / _MIB:.0f} MiB in the first fifth, {max(late) / _MIB:.0f} in the last")
    assert max(late) <= max(early) * 1.1 + 48 * _MIB


@pytest.mark.long  # half a minute of CI; the one of 20,000 looks at the same
@pytest.mark.timeout(900)
def test_a_thousand_documents(driver: Driver, tmp_path: Path) -> None:
    stays_flat(driver, tmp_path, 1_000, 0.5, 600)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_twenty_thousand_documents(driver: Driver, tmp_path: Path) -> None:
    stays_flat(driver, tmp_path, 20_000, 2, 3000)
