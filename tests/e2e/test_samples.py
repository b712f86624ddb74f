"""The main job on the sample documents: real PDFs, the embedded engines, through Ray; what a newcomer sees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import pagemill
from pipelines.store.audit import audit
from pipelines.store.reading import comparable
from tests.conftest import ROOT, Driver

EXPECTED = {k: v for k, v in json.loads((ROOT / "samples" / "expected.json").read_text("utf-8")).items() if k != "_"}
READ = [name for name, wanted in EXPECTED.items() if wanted["state"] == "ok"]
REAL = {"recognize.engine": "embedded", "layout.engine": "embedded", "raster.dpi": 144}


@pytest.fixture(scope="module")
def output(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("samples")
    driver = Driver(ray_address, folder / "cache")
    shown = REAL | {"observe.report_pages": 5}
    code, out = driver.run(str(ROOT / "samples" / "documents"), str(folder / "out"), settings=shown)
    assert code == 3, out
    assert "damaged.pdf" in out
    assert "1 failed" in out
    assert "WARNING" not in out
    assert "ray" not in out.lower().replace("pymupdf", "")
    return str(folder / "out")


def flat(text: str) -> str:
    plain = re.sub(r"<[^>]+>", " ", text.replace("\\", ""))
    return " ".join(plain.split()).lower()


def markdown_of(output: str, name: str) -> str:
    row = next(r for r in pagemill.read(output, "documents").to_pylist() if any(uri.endswith("/" + name) for uri in r["uris"]))
    return (Path(output) / row["markdown"]).read_text("utf-8")


def test_everything_is_accounted_for(output: str) -> None:
    result = audit(output, [str(path) for path in (ROOT / "samples" / "documents").iterdir()])
    assert result.ok, result.problems
    assert result.unopened == 1
    by_name = {Path(row["uris"][0]).name: row for row in pagemill.read(output, "documents").to_pylist()}
    for name, wanted in EXPECTED.items():
        assert (by_name[name]["state"], by_name[name]["error_code"]) == (wanted["state"], wanted.get("error_code"))
        assert (by_name[name]["page_count"] or 0) == wanted["pages"]


@pytest.mark.parametrize("name", READ)
def test_what_stands_in_a_sample_is_read(output: str, name: str) -> None:
    text = flat(markdown_of(output, name))
    missing = [phrase for phrase in EXPECTED[name].get("contains", []) if flat(phrase) not in text]
    assert not missing
    cells = {flat(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", markdown_of(output, name), re.S)}
    missing_cells = [cell for cell in EXPECTED[name].get("cells", []) if flat(cell) not in cells]
    assert not missing_cells


def test_provenance_and_images(output: str) -> None:
    blocks = pagemill.read(output, "blocks").to_pylist()
    assert {block["source"] for block in blocks} >= {"text_layer", "pixels"}
    assert all(block["weights"] for block in blocks if block["source"] == "pixels")
    for block in blocks:
        x0, y0, x1, y1 = block["bbox_pt"]
        assert x0 < x1
        assert y0 < y1
    assert any(block["image"] for block in blocks)


def test_the_same_again_inline_with_other_spans_is_equal(output: str, tmp_path: Path) -> None:
    """P5: same bytes, same fingerprint: same pages, blocks, boxes, order, states and text, whatever the parallelism."""
    from pipelines.config import load
    from pipelines.ingest import ingest

    settings = [f"{key}={value}" for key, value in REAL.items()] + [
        "source.span_pages=3",
        f"source.cache_dir={tmp_path / 'cache'}",
    ]
    ended = ingest(str(ROOT / "samples" / "documents"), str(tmp_path / "out"), load(settings=settings), inline=True)
    assert ended.exit_code == 3
    assert comparable(pagemill.read(str(tmp_path / "out"), "pages")).equals(comparable(pagemill.read(output, "pages")))


def test_the_report_escapes_and_asks_nobody(output: str) -> None:
    (page,) = Path(output).glob("runs/*/report.html")
    text = page.read_text("utf-8")
    assert "DAMAGED_DOCUMENT" in text
    assert "content=\"default-src 'none'; img-src data:; style-src 'sha256-" in text.replace("&#39;", "'")
    assert not re.search(r"(src|href)=(?!\"(#|data:image/webp;base64,))|url\(|@import", text)
    assert text.count('<article class="page"') == 5
    assert text.count("data:image/webp") == 10
    report = json.loads((page.parent / "report.json").read_text("utf-8"))
    assert report["exit_code"] == 3
    assert report["first_commit_s"] > 0
