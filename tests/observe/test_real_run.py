"""The report of a real run: boxes lie over the text that they claim, any page can be had again, report.json is what it says."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image

from jobs.cli import app
from pipelines.config import Config, load
from pipelines.errors import ConfigError
from pipelines.ingest import ingest
from pipelines.observe.recall import recall
from pipelines.observe.report import SCHEMA
from pipelines.store.reading import Output
from tests.builders import archive
from tests.conftest import ROOT
from tests.observe.conftest import Browser

LINES = [
    "The harbour office opens at seven and closes late",
    "A second line of the same paragraph stands below",
    "and a third one ends what there is to say here.",
]


def positions_pdf(path: Path) -> None:
    """Two paragraphs far apart on a plain page, on a turned one, and on one whose crop box does not begin at 0, 0."""
    document = pymupdf.open()
    for number in range(3):
        page = document.new_page(width=595, height=842)
        for top in (120, 560):
            for row, line in enumerate(LINES):
                page.insert_text((90, top + 16 * row), line, fontsize=12, fontname="helv")
        if number == 1:
            page.set_rotation(90)
        if number == 2:
            page.set_cropbox(pymupdf.Rect(60, 80, 560, 800))
    document.save(path)
    document.close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Config:
    cache = tmp_path_factory.mktemp("cache")
    lines = ["recognize.engine=tests.readers:LineReader", "layout.engine=none"]
    return load(settings=[f"source.cache_dir={cache}", "observe.report_pages=24", *lines])


@pytest.fixture(scope="module")
def output(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    positions_pdf(folder / "in" / "positions.pdf")
    (folder / "in" / "broken.pdf").write_bytes(b"%PDF-1.4 nothing follows")
    ended = ingest(str(folder / "in"), str(folder / "out"), settings, inline=True)
    assert ended.exit_code == 3
    return folder / "out"


def the(output: Path, name: str) -> Path:
    (found,) = output.glob(f"runs/*/{name}")
    return found


def test_boxes_lie_over_the_text_they_claim(browser: Browser, output: Path) -> None:
    aligned(browser, the(output, "report.html"), [1, 2, 3])


def test_boxes_of_a_page_that_was_set_upright(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    angles = iter([90, 180, 270])
    monkeypatch.setattr("pipelines.layout.orientation.Orientation.angle", lambda model, pixels: next(angles))
    (tmp_path / "in").mkdir()
    positions_pdf(tmp_path / "in" / "positions.pdf")
    upright = [
        "recognize.engine=tests.readers:LineReader",
        "layout.engine=none",
        "paddleocr_vl.use_doc_orientation_classify=true",
    ]
    config = load(settings=[f"source.cache_dir={tmp_path / 'cache'}", *upright])
    ended = ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True)
    assert ended.summary.pages == {"ok": 3}
    html = the(tmp_path / "out", "report.html").read_text("utf-8")
    assert all(f"{angle}°" in html for angle in (90, 180, 270))
    aligned(browser, the(tmp_path / "out", "report.html"), [1, 2, 3])


def aligned(browser: Browser, report: Path, numbers: list[int]) -> None:
    """Every dark pixel of these pages' pictures lies in a box, and every box holds some."""
    browser.open(report, width=1800, height=2400)
    browser.until(lambda: browser.js("return document.querySelector('article.shown svg image') !== null"), "a picture")
    for number in numbers:
        browser.js("document.querySelector(`#list li[data-page='${arguments[0]}']`).click()", number)
        assert browser.js("return document.querySelector('article.shown .page-head').innerText").count("positions.pdf") == 1
        rectangle = "const r = arguments[0].getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]"
        paper = browser.js("return document.querySelector('article.shown .scan svg .paper')")
        boxes = browser.js("return [...document.querySelectorAll('article.shown .box .b')]")
        assert len(boxes) == 2
        found = [browser.js(rectangle, box) for box in boxes]
        browser.js("document.querySelectorAll('article.shown .box').forEach(box => box.style.display = 'none')")
        left, top, right, bottom = browser.js(rectangle, paper)
        screen = np.asarray(Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("L"))
        dark = screen < 128
        inside = np.zeros_like(dark)
        inside[int(top) + 2 : int(bottom) - 2, int(left) + 2 : int(right) - 2] = True
        assert (dark & inside).sum() > 500  # the picture is there
        covered = np.zeros_like(dark)
        for x0, y0, x1, y1 in found:
            assert left - 1 <= x0 < x1 <= right + 1
            assert top - 1 <= y0 < y1 <= bottom + 1
            box = (slice(int(y0), int(y1) + 1), slice(int(x0), int(x1) + 1))
            for axis in (0, 1):
                lines = dark[box].any(axis=axis)
                assert lines[: len(lines) // 3].any()  # text in the first and in the last third: not shifted by a line
                assert lines[-len(lines) // 3 :].any()
            covered[int(y0) - 3 : int(y1) + 4, int(x0) - 3 : int(x1) + 4] = True
        assert (dark & inside & ~covered).sum() < 0.03 * (dark & inside).sum()


def test_the_text_stands_beside_it(browser: Browser, output: Path) -> None:
    browser.open(the(output, "report.html"))
    for number in (1, 3):
        said = browser.js(f"return document.querySelector('#page-{number} .blocks').textContent")
        for line in LINES:
            assert line in " ".join(said.split())
    assert browser.console() == []


def test_report_json_is_documented_key_by_key(output: Path) -> None:
    shown = json.loads(the(output, "report.json").read_text("utf-8"))
    assert shown["schema"] == SCHEMA
    text = (ROOT / "docs" / "output.md").read_text("utf-8")
    section = text[text.index("## report.json") :]
    documented = {key for cell in re.findall(r"^\| (`[^|]*)\|", section, re.M) for key in re.findall(r"`(\w+)`", cell)}
    assert set(shown) == documented
    assert len(shown["sample"]) == 3
    assert shown["slowest_documents"][0]["uri"].endswith("positions.pdf")
    assert sum(shown["quality"]["characters"].values()) > 300
    assert shown["failures"][0]["message"]


def test_any_page_again_on_demand(output: Path, settings: Config, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    target = tmp_path / "deep" / "page.html"
    before = sorted(output.rglob("*"))
    cache = f"source.cache_dir={settings.source.cache_dir}"
    done = CliRunner().invoke(app, ["report", str(output), "--page", "positions.pdf:2-3", "--to", str(target), "--set", cache])
    assert done.exit_code == 0, done.output
    html = target.read_text("utf-8")
    assert html.count('<article class="page"') == 2
    assert html.count("data:image/webp") == 4
    assert "asked for" in html
    assert sorted(output.rglob("*")) == before
    for wrong in ("positions.pdf:9", "nowhere.pdf:1", "positions.pdf", "positions.pdf:0", ":1"):
        with Output(str(output), parts=False) as opened, pytest.raises(ConfigError):
            recall(opened, settings, None, [wrong])
    with Output(str(output), parts=False) as opened, pytest.raises(ConfigError, match="no run"):
        recall(opened, settings, "../../etc", [])


def test_a_source_that_changed_or_went_leaves_the_text_and_says_so(settings: Config, tmp_path: Path) -> None:
    config = load(settings=[f"source.cache_dir={tmp_path / 'cache'}", "recognize.engine=echo", "layout.engine=none"])
    archive(tmp_path / "in", {"a": 1, "b": 1})
    ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True)
    other = load(settings=[f"source.cache_dir={tmp_path / 'cache2'}"])  # a machine that never saw the documents
    (tmp_path / "in" / "a.pdf").unlink()
    (tmp_path / "in" / "b.pdf").write_bytes(b"something else")
    with Output(str(tmp_path / "out"), parts=False) as opened:
        html, _ = recall(opened, other, None, [])
    assert html.count('<article class="page"') == 2
    assert "data:image/webp" not in html
    assert "No such file" in html
    assert "now holds document" in html
    for name in ("a", "b"):
        assert f"Document {name} page 0 says" in html


def test_a_run_that_did_not_live_to_report_is_counted_from_the_ledger(settings: Config, tmp_path: Path) -> None:
    config = load(settings=[f"source.cache_dir={tmp_path / 'cache'}", "recognize.engine=echo", "layout.engine=none"])
    archive(tmp_path / "in", {"a": 3})
    ended = ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True)
    for name in ("report.json", "report.html", "config.yaml"):
        the(tmp_path / "out", name).unlink()
    with Output(str(tmp_path / "out"), parts=False) as opened:
        html, run = recall(opened, config, None, [])
    assert run == ended.summary.run_id
    assert "counted from the ledger" in html
    assert "3 pages were read" in html
    assert html.count('<article class="page"') == 3
    assert html.count("data:image/webp") == 6


def test_no_picture_budget_no_pictures_but_text(settings: Config, output: Path) -> None:
    from pipelines.observe.pages import PageDrawer, shown_pages
    from pipelines.observe.sample import Pick

    picks = [Pick.from_dict(entry) for entry in json.loads(the(output, "report.json").read_text("utf-8"))["sample"]]
    with Output(str(output), parts=False) as opened, PageDrawer(settings) as drawer:
        pages = list(shown_pages(picks, opened.store, drawer, budget_s=-1))
        lost = Pick(0.0, "0" * 64, 0, "/x", "pages/part-none.parquet", "a", "ok", "random")
        (missing,) = shown_pages([lost], opened.store, drawer, budget_s=1)
    assert all(page.row and page.picture is None and "used up" in page.note for page in pages)
    assert missing.row is None
    assert "not there" in missing.note
