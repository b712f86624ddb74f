"""P2 with a source that changes while it is read. tests/source/test_changes.py has each case by itself, without Ray."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pagemill
from pipelines.store.audit import audit
from tests.builders import archive, pdf_bytes
from tests.conftest import Driver
from tests.faults.harness import SLOW, read_pages, wait_for


@contextmanager
def written_again_and_again(path: Path) -> Iterator[None]:
    """Somebody saves a document in place, in two halves with a pause between, all the time; its last state is whole."""
    stop = threading.Event()

    def write() -> None:
        for state in itertools.count():
            data = pdf_bytes([f"state {state} of page {page}" for page in range(3)], extra=b"%" + b"x" * 200_000 + b"\n")
            with open(path, "wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                stop.wait(0.02)
                file.write(data[len(data) // 2 :])
            if stop.wait(0.3):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


@pytest.mark.long  # in make test: tests/source/test_changes.py, at chosen moments
@pytest.mark.timeout(900)
def test_a_document_that_is_written_again_and_again_is_read_whole_or_not(driver: Driver, tmp_path: Path) -> None:
    """Another is replaced and a third removed meanwhile: the next run's output is that of the source as it then stands."""
    source, output = archive(tmp_path / "in", {"a": 30, "b": 3, "c": 2}), str(tmp_path / "out")
    with written_again_and_again(source / "busy.pdf"):
        process: subprocess.Popen[str] = driver.start(str(source), output, settings=SLOW)
        wait_for(lambda: list(Path(output).glob("pages/*.parquet")), process, "the first part")
        (source / "new.pdf").write_bytes(pdf_bytes(["what b says from now on"]))
        (source / "new.pdf").rename(source / "b.pdf")
        (source / "c.pdf").unlink()
        out, _ = process.communicate(timeout=400)
    assert process.returncode in (0, 3), out
    texts = pagemill.read(output, "pages", columns=["doc_id", "markdown"], history=True).to_pylist()
    states: dict[str, set[str]] = {}
    for row in texts:
        if (row["markdown"] or "").startswith("state "):
            states.setdefault(row["doc_id"], set()).add(row["markdown"].split(" of ")[0])
    assert all(len(state) == 1 for state in states.values()), "a document was read half in one state, half in another"
    code, out = driver.run(str(source), output, settings=SLOW)
    assert code == 0, out
    assert audit(output, [str(path) for path in source.iterdir()]).ok
    shutil.rmtree(driver.cache, ignore_errors=True)
    whole = str(tmp_path / "whole")
    assert driver.run(str(source), whole, settings=SLOW)[0] == 0
    names = {row["doc_id"] for row in pagemill.read(whole, "documents").to_pylist()}
    live = read_pages(output).to_pylist()
    assert [row for row in live if row["doc_id"] in names] == read_pages(whole).to_pylist()
    gone = [row for row in pagemill.read(output, "sources").to_pylist() if row["presence"] == "vanished"]
    assert [Path(row["uri"]).name for row in gone] == ["c.pdf"]  # it keeps its last reading
