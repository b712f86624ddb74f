"""End to end through Ray with vLLM for real: PDF, rasterizer, given boxes, crops, engine actor, Markdown and Parquet.

The engine actor is the one of a GPU, in a pool of its own; only its settings are small. CPU here, CUDA where there is a card.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from pathlib import Path

import psutil
import pytest

import pagemill
from pipelines.store.audit import audit
from tests.conftest import Driver
from tests.e2e.vllm_document import PAGES, document, gate, table_html
from tests.faults.harness import wait_for
from tests.vllm.settings import SETTINGS

pytest.importorskip("vllm", reason="vLLM is not in this environment: `make .venv-vllm`; make test runs this file there")
pytestmark = pytest.mark.timeout(900)

GIVEN = SETTINGS | {"layout.engine": "tests.e2e.vllm_document:Given", "recognize.text_layer": "verify"}
WORDS = "river stone harbour ledger archive north south paper meadow column page table report Monday total".split()  # noqa: SIM905


def fresh(seed: int, pages: int) -> list[tuple[str, list[str], list[list[str]]]]:
    """Pages that nobody has seen."""
    chance = random.Random(seed)

    def line(count: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(count))

    return [
        (line(4), [line(4) for _ in range(3)], [[chance.choice(WORDS), str(chance.randrange(1000))] for _ in range(3)])
        for _ in range(pages)
    ]


def truth(page: tuple[str, list[str], list[list[str]]]) -> tuple[str, str, str]:
    line, paragraph, rows = page
    return line, "\n".join(paragraph), table_html(rows)


def test_a_document_through_ray_and_vllm(driver: Driver, tmp_path: Path) -> None:
    """The committed document is read exactly; fresh ones with at most 1 % of characters wrong."""
    from rapidfuzz.distance import Levenshtein

    source = tmp_path / "in"
    source.mkdir()
    (source / "known.pdf").write_bytes(document(PAGES))
    seen_by_nobody = fresh(seed=int(time.time()), pages=8) if os.environ.get("PAGEMILL_FRESH") else fresh(seed=2026, pages=8)
    (source / "fresh.pdf").write_bytes(document(seen_by_nobody))
    output = str(tmp_path / "out")
    code, out = driver.run(str(source), output, settings=GIVEN | {"source.span_pages": 4}, timeout=800)
    assert code == 0, out
    by_count: dict[int, list[dict[str, object]]] = {}
    for row in pagemill.read(output, "pages").to_pylist():
        by_count.setdefault(row["doc_id"], []).append(row)
    known, new = sorted(by_count.values(), key=len)
    assert [_content(row) for row in sorted(known, key=_index)] == [truth(page) for page in PAGES]
    wrong = total = 0
    for row, page in zip(sorted(new, key=_index), seen_by_nobody, strict=True):
        for said, meant in zip(_content(row), truth(page), strict=True):
            wrong, total = wrong + Levenshtein.distance(said, meant), total + len(meant)
    print(f"character error on fresh pages: {wrong / total:.2%} of {total}")
    assert wrong <= 0.01 * total
    # held against the text layer, block by block
    blocks = pagemill.read(output, "blocks").to_pylist()
    assert len(blocks) == 3 * 11
    assert all(block["agreement"] > 0.9 for block in blocks)
    assert {block["engine"] for block in blocks} == {"vllm/paddleocr-vl-tiny"}
    assert all(block["tokens"] > 3 and len(block["weights"]) == 16 for block in blocks)
    markdown = "".join(path.read_text() for path in Path(output).glob("markdown/**/*.md"))
    assert "Ledger of the northern archive" in markdown
    assert "<td>340</td>" in markdown
    report = json.loads(next(Path(output).glob("runs/*/report.json")).read_text())
    assert ["recognize"] in [pool["stages"] for pool in report["pools"]]
    quality = report["quality"]
    assert quality["crops"] == 3 * 11
    assert quality["patches"] >= 4 * quality["crops"]  # a merged token of four is the least that a picture has


def test_an_engine_killed_in_mid_run_loses_nothing(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    pages = fresh(seed=7, pages=12)
    (source / "long.pdf").write_bytes(document(pages))
    output = str(tmp_path / "out")
    # layout waits until the engine was killed, so that no run is over before
    settings = GIVEN | {
        "layout.engine": "tests.e2e.vllm_document:Gated", "source.span_pages": 2, "ray.task_retries": 3,
        "vllm.max_num_seqs": 2, "vllm.wave": 1,
    }  # fmt: skip
    process = driver.start(str(source), output, settings=settings)
    seen = dict[int, psutil.Process]()
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")) and engines(), process, "an engine that has read", within_s=600)
    for engine in engines():
        seen[engine.pid] = engine
        engine.kill()
    killed = len(seen)
    gate(driver.cache).touch()
    until = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < until:
        seen |= {engine.pid: engine for engine in engines()}
        time.sleep(0.1)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert killed, out
    assert len(seen) > killed, "no engine came back"
    rows = sorted(pagemill.read(output, "pages").to_pylist(), key=_index)
    assert [row["state"] for row in rows] == ["ok"] * 12
    similar = sum(_content(row) == truth(page) for row, page in zip(rows, pages, strict=True))
    assert similar >= 6  # the model misreads a character here and there; that every page is its own is what counts
    result = audit(output, [str(source / "long.pdf")])
    assert result.ok, result.problems
    # Ray kills actors without asking them; an orphaned engine would keep the card's memory
    assert gone(list(seen.values()), within_s=60)


def engines() -> list[psutil.Process]:
    """vLLM's own processes below this test's cluster; those of other tests on the machine are not ours.

    By the title that they give themselves, or by how they are begun: setproctitle leaves the title as it was, without a word, if
    the first of the environment's variables was set anew before (and which is the first, Ray leaves to chance).
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            begun = " ".join(process.cmdline())
            if "EngineCore" in begun or "multiprocessing.spawn" in begun:
                found.append(process)
    return found


def gone(processes: list[psutil.Process], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _index(row: dict[str, object]) -> int:
    return int(str(row["page_index"]))


def _content(row: dict[str, object]) -> tuple[str, str, str]:
    line, paragraph, table = row["blocks"]  # type: ignore[misc]
    return line["content"], paragraph["content"], table["html"]
