"""P3: one hostile input cannot stop, slow by more than its own budget, or corrupt any other. Through Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pagemill
from pipelines.store.audit import audit
from tests.builders import archive, page_text, pdf_bytes, text_pdf
from tests.conftest import Driver, inline
from tests.hostile import billion_laughs, kinds, memory_bomb


def states(output: str) -> dict[str, list[str]]:
    """Page states by document name."""
    names = {row["doc_id"]: Path(row["uri"]).stem for row in pagemill.read(output, "sources").to_pylist()}
    found: dict[str, list[str]] = {}
    for row in pagemill.read(output, "pages").to_pylist():
        found.setdefault(names[row["doc_id"]], []).append(row["error_code"] or row["state"])
    return found


def ended(output: str) -> dict[str, set[str]]:
    """By file name: the states of its pages, or of the document when it has none."""
    documents = {row["doc_id"]: row["state"] for row in pagemill.read(output, "documents").to_pylist()}
    found: dict[str, set[str]] = {doc_id: set() for doc_id in documents}
    for row in pagemill.read(output, "pages", columns=["doc_id", "state"]).to_pylist():
        found[row["doc_id"]].add(row["state"])
    names = {Path(row["uri"]).name: row["doc_id"] for row in pagemill.read(output, "sources").to_pylist()}
    return {name: found[doc_id] or {documents[doc_id]} for name, doc_id in names.items()}


HOSTILE: dict[str, object] = {"raster.deadline_s": 3, "raster.memory_mib": 512, "raster.dpi": 72, "raster.max_megapixels": 4}


@pytest.mark.timeout(900)
def test_one_file_of_each_hostile_kind(driver: Driver, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"good": 9, "other": 1})
    for name, (data, _) in kinds().items():
        (source / name).write_bytes(data)
    output = str(tmp_path / "out")
    code, out = driver.run(str(source), output, settings=HOSTILE)
    assert code == 3, out
    found = ended(output)
    assert found["good.pdf"] == found["other.pdf"] == {"ok"}
    wrong = {name: (found[name], allowed) for name, (_, allowed) in kinds().items() if not found[name] <= allowed}
    assert not wrong
    errors = {Path(uri).name: row["error_code"] for row in pagemill.read(output, "documents").to_pylist() for uri in row["uris"]}
    assert errors["zero-byte"] == "EMPTY_FILE"
    assert errors["html.pdf"] == "HTML_PAGE"
    assert errors["gzip.pdf"] == errors["random"] == "UNSUPPORTED_FORMAT"
    assert errors["zero-pages"] == "NO_PAGES"
    assert errors["encrypted-user"] == "ENCRYPTED"
    result = audit(output, [str(path) for path in source.iterdir()])
    assert result.ok, result.problems


def test_what_failed_transiently_is_tried_three_times_in_all(tmp_path: Path) -> None:
    """Inline: that tries are counted through Ray as well, the page that kills its worker shows."""
    source = archive(tmp_path / "in", {"good": 2})
    (source / "laughs.pdf").write_bytes(billion_laughs(26))
    (source / "cut.pdf").write_bytes(pdf_bytes([page_text("cut", n) for n in range(6)])[:1500])
    output = str(tmp_path / "out")
    settings = {key.replace(".", "__"): value for key, value in HOSTILE.items()} | {"raster__engine": "pymupdf"}
    for tries in (1, 2, 3):
        assert inline(source, output, **settings).exit_code == 3
        laughs = [row for row in pagemill.read(output, "pages").to_pylist() if row["error_code"] == "PAGE_TIMEOUT"]
        assert [row["tries"] for row in laughs] == [tries]
        assert audit(output).ok
    last = inline(source, output, **settings)
    assert last.exit_code == 0
    assert last.summary.status == "nothing_to_do"


def test_a_memory_bomb_fails_alone(driver: Driver, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"good": 3})
    (source / "bomb.png").write_bytes(memory_bomb(10_000))  # 300 MB of pixels
    output = str(tmp_path / "out")
    code, out = driver.run(str(source), output, settings={"raster.memory_mib": 200})
    assert code == 3, out
    assert states(output) == {"good": ["ok"] * 3, "bomb": ["PAGE_MEMORY"]}


def test_a_page_that_kills_its_worker_costs_that_page(driver: Driver, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"good": 12, "other": 1})
    texts = [page_text("poisoned", page) for page in range(10)]
    texts[4] = "POISON"
    (source / "poisoned.pdf").write_bytes(pdf_bytes(texts))
    output = str(tmp_path / "out")
    settings: dict[str, object] = {"recognize.engine": "tests.readers:PoisonReader", "ray.task_retries": 1}
    code, out = driver.run(str(source), output, settings=settings)
    assert code == 3, out
    (report,) = Path(output).glob("runs/*/report.json")
    (named,) = json.loads(report.read_text("utf-8"))["failures"]
    assert (Path(named["uri"]).name, named["page_index"], named["code"]) == ("poisoned.pdf", 4, "WORKER_LOST")
    found = states(output)
    assert found["good"] == ["ok"] * 12
    assert found["other"] == ["ok"]
    assert found["poisoned"] == ["ok"] * 4 + ["WORKER_LOST"] + ["ok"] * 5
    result = audit(output)
    assert result.ok, result.problems
    code, out = driver.run(str(source), output, settings=settings)  # tried once more, and alone from the start of its revision
    assert code == 3, out
    rows = pagemill.read(output, "pages").to_pylist()
    assert [(row["page_index"], row["tries"]) for row in rows if row["error_code"] == "WORKER_LOST"] == [(4, 2)]
    assert [row["state"] for row in rows].count("ok") == 22


@pytest.mark.long  # in make test: what a span costs, and a budget that processes share (tests/raster/test_isolate.py)
def test_a_hostile_document_cannot_cost_a_deadline_for_each_page(driver: Driver, tmp_path: Path) -> None:
    """Every page hangs: at most `document_deadlines` of them are tried."""
    source = tmp_path / "in"
    text_pdf(source / "good.pdf", 2)
    (source / "hostile.pdf").write_bytes(billion_laughs(26, pages=60))
    output = str(tmp_path / "out")
    settings: dict[str, object] = {"raster.deadline_s": 4, "raster.document_deadlines": 2, "source.span_pages": 4}
    code, out = driver.run(str(source), output, settings=settings)
    assert code == 3, out
    found = states(output)
    assert found["good"] == ["ok", "ok"]
    assert len(found["hostile"]) == 60
    tried = sum(state != "BUDGET_EXCEEDED" for state in found["hostile"])
    assert 2 <= tried <= 4  # two workers may each be in a page when the budget runs out
    # terminal: what the budget ended is not tried again, not even once more on this node
    code, out = driver.run(str(source), output, settings=settings)
    again = states(output)["hostile"]
    assert sum(state != "BUDGET_EXCEEDED" for state in again) <= tried
    assert again.count("BUDGET_EXCEEDED") >= 56
