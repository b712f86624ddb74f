"""P2 and P3 where a node runs short of memory: Ray's own monitor ends workers, the run goes on and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pagemill
from pipelines.observe.summary import MEMORY_HINT
from pipelines.store.audit import audit
from tests.builders import pdf_bytes
from tests.conftest import Driver, inline
from tests.faults.harness import read_pages
from tests.readers import MEMORY_THRESHOLD, memory_share

READER = "tests.readers:HungryReader"
SETTINGS: dict[str, object] = {"recognize.engine": READER, "source.span_pages": 4}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Private clusters whose monitor acts when the machine has 2 GiB less than now, not when it is full."""
    monkeypatch.setenv(MEMORY_THRESHOLD, f"{memory_share() + 0.085:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "250")
    monkeypatch.setenv("PAGEMILL_TEST_SATED", str(tmp_path / "sated"))


def documents(folder: Path, word: str) -> Path:
    folder.mkdir()
    for name, pages in {"a": ["page"] * 6, "b": ["one", "two", word, "four"], "c": ["page again"] * 5}.items():
        (folder / f"{name}.pdf").write_bytes(pdf_bytes(pages))
    return folder


def read_with(word: str, folder: Path, expected: int) -> tuple[Path, str, str]:
    """Documents one of which has this word, read through a cluster of their own: source, output, and what was printed."""
    source, output = documents(folder / "in", word), str(folder / "out")
    code, out = Driver("null", folder / "cache").run(str(source), output, settings=SETTINGS)
    assert code == expected, out
    return source, output, out


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("watched")
def test_workers_that_ray_ends_for_memory_are_counted_and_cost_no_page(tmp_path: Path) -> None:
    source, output, out = read_with("PECKISH", tmp_path, 0)
    assert "Ray ended workers because their node was short of it" in out
    (report,) = Path(output).glob("runs/*/report.json")
    assert sum(json.loads(report.read_text("utf-8"))["memory_kills"].values()) > 0
    whole = inline(source, tmp_path / "whole", recognize__engine=READER, raster__engine="pymupdf")  # it is sated by now
    assert whole.exit_code == 0
    assert read_pages(output).equals(read_pages(str(tmp_path / "whole")))
    assert audit(output, [str(path) for path in source.iterdir()]).ok


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("watched")
def test_a_page_that_takes_all_memory_each_time_ends_and_says_why(tmp_path: Path) -> None:
    """Ray by itself would begin its block again for ever."""
    source, output, _ = read_with("HUNGRY", tmp_path, 3)
    rows = pagemill.read(output, "pages").to_pylist()
    assert len(rows) == 15
    (lost,) = [row for row in rows if row["state"] != "ok"]
    assert (lost["page_index"], lost["error_code"]) == (2, "WORKER_LOST")
    assert "its node was short of memory" in lost["error_message"]
    assert audit(output, [str(path) for path in source.iterdir()]).ok


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("watched")
def test_workers_that_have_no_memory_to_start_in_end_the_run_with_words(tmp_path: Path) -> None:
    """Ray by itself would start them again for ever. With more memory the next run reads everything."""
    source, output = documents(tmp_path / "in", "three"), str(tmp_path / "out")
    driver = Driver("null", tmp_path / "cache")
    code, out = driver.run(str(source), output, settings=SETTINGS | {"recognize.engine": "tests.readers:GluttonReader"})
    assert code == 10, out
    assert "ENGINE_UNAVAILABLE: no worker for " in out
    assert MEMORY_HINT in out
    assert not audit(output).ok  # pending, none of them failed
    assert pagemill.read(output, "pages").num_rows == 0
    code, out = driver.run(str(source), output, settings=SETTINGS)
    assert code == 0, out
    assert pagemill.read(output, "pages").num_rows == 15
    assert audit(output, [str(path) for path in source.iterdir()]).ok
