"""The pipeline around a vision-language model, through Ray: the same pages whatever dies, and words when nothing can start."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import pagemill
from pipelines.config import load
from pipelines.ingest import ingest
from pipelines.recognize.base import Answer, Crop
from pipelines.recognize.engines import Identity, form_of
from pipelines.recognize.finishing import FinishPages
from pipelines.recognize.pack import PatchFormat
from pipelines.recognize.vision import CropPages, ReadCrops
from pipelines.schema import Box, PageWork, RasterPage, Region, Span, SpanWork
from pipelines.store.audit import audit
from pipelines.store.reading import comparable
from tests.builders import archive, pdf_bytes
from tests.conftest import Driver
from tests.engines import Digest

SIZES = {"long": 21, "short-a": 1, "short-b": 2}
PAGES = sum(SIZES.values())


def pages(output: str) -> pa.Table:
    return comparable(pagemill.read(output, "pages")).drop_columns(["fingerprint"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("vision") / "in", SIZES)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    output = str(tmp_path_factory.mktemp("undisturbed") / "out")
    settings = ["recognize.engine=tests.engines:Digest", "layout.engine=none", "raster.dpi=36"]
    assert ingest(str(source), output, load(settings=settings), inline=True).exit_code == 0
    return pages(output)


@pytest.mark.parametrize("fuse", [pytest.param("true", marks=pytest.mark.long), "false"])  # fused, engines that read pages are
def test_through_ray_as_inline(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path, fuse: str) -> None:
    output = str(tmp_path / "out")
    code, out = driver.run(
        str(source), output, settings={"recognize.engine": "tests.engines:Digest", "ray.fuse": fuse, "source.span_pages": 3}
    )
    assert code == 0, out
    assert undisturbed.num_rows == PAGES
    assert pages(output).equals(undisturbed)
    blocks = pagemill.read(output, "blocks").to_pylist()
    assert len(blocks) == PAGES
    assert all(block["content"].startswith("OCR: ") for block in blocks)
    assert {block["engine"] for block in blocks} == {"digest"}
    assert {block["tokens"] for block in blocks} == {8}
    assert all(0 <= block["agreement"] <= 1 for block in blocks)  # `verify` is the default of models


def test_long_answers_do_not_keep_others_waiting(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path) -> None:
    """Three blocks wait for one answer each; those that come after them are read meanwhile, else the answers never come."""
    output = str(tmp_path / "out")
    settings: dict[str, object] = {
        "recognize.engine": "tests.engines:LongFirst", "server.concurrency": 8, "source.span_pages": 1, "ray.workers": 1,
    }  # fmt: skip
    code, out = driver.run(str(source), output, settings=settings)
    assert code == 0, out
    assert pages(output).equals(undisturbed)


def test_an_engine_that_dies_loses_nothing(driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    driver.cache.mkdir()
    settings: dict[str, object] = {"recognize.engine": "tests.engines:Mortal", "source.span_pages": 3, "ray.task_retries": 3}
    code, out = driver.run(str(source), output, settings=settings)
    assert code == 0, out
    assert sorted(path.name for path in driver.cache.glob("died-*")) == ["died-0", "died-1"]
    assert pages(output).equals(undisturbed)
    result = audit(output, [str(path) for path in source.iterdir()])
    assert result.ok, result.problems


def test_an_engine_that_cannot_start_ends_the_run_with_its_words(driver: Driver, source: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    code, out = driver.run(str(source), output, settings={"recognize.engine": "tests.engines:Stillborn", "ray.workers": 1})
    assert code == 10, out
    assert "ENGINE_UNAVAILABLE: 6.77 of 7.96 GiB are free: --set vllm.gpu_memory_utilization=0.72" in out
    assert pagemill.read(output, "pages").num_rows == 0
    code, out = driver.run(str(source), output, settings={"recognize.engine": "tests.engines:Digest", "ray.workers": 1})
    assert code == 0, out
    assert pagemill.read(output, "pages").num_rows == PAGES


def test_difficult_answers_cost_blocks_and_no_page(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "doc.pdf").write_bytes(pdf_bytes([f"page {n} of the document that is hard to read" for n in range(12)]))
    common = ["recognize.engine=tests.engines:Difficult", "layout.engine=none", "raster.dpi=36"]
    output = str(tmp_path / "out")
    ended = ingest(str(source), output, load(settings=[*common, "recognize.text_layer=off"]), inline=True)
    assert ended.exit_code == 0
    blocks = pagemill.read(output, "blocks").to_pylist()
    by_code: dict[str | None, list[dict[str, object]]] = {}
    for block in blocks:
        by_code.setdefault(block["error_code"], []).append(block)
    assert {code: len(found) for code, found in by_code.items()} == {
        "ANSWER_TRUNCATED": 2, "ANSWER_EMPTY": 2, "CROP_TIMEOUT": 2, "ENGINE_FAILED": 2, None: 4,
    }  # fmt: skip
    led_out = [block for block in blocks if block["rung"] == "sampling"]
    assert [(block["tokens"], block["tokens_saved"]) for block in led_out] == [(39, 4064)] * 2
    states = pagemill.read(output, "pages").to_pylist()
    assert {row["state"] for row in states} == {"ok", "degraded"}
    # with a text layer that can be trusted, it stands in for what the model did not give
    output = str(tmp_path / "verified")
    ingest(str(source), output, load(settings=common), inline=True)
    rows = pagemill.read(output, "pages").to_pylist()
    blocks = [block for row in rows for block in row["blocks"]]
    instead = [block for block in blocks if block["rung"] == "text_layer"]
    assert len(instead) == 8
    assert all(block["content"].endswith("that is hard to read") and block["source"] == "text_layer" for block in instead)
    assert all("text_layer_instead" in row["flags"] for row in rows if row["blocks"][0]["rung"] == "text_layer")
    # and what it contradicts is flagged
    wrong = [row for row in rows if row["blocks"][0]["content"] == "a good answer"]
    assert len(wrong) == 2
    assert all(row["blocks"][0]["agreement"] < 0.5 and "text_layer_disagrees" in row["flags"] for row in wrong)


def test_prefer_asks_only_what_the_layer_cannot_give(tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"doc": 3})
    settings = ["recognize.engine=tests.engines:Digest", "layout.engine=none", "raster.dpi=36", "recognize.text_layer=prefer"]
    output = str(tmp_path / "out")
    assert ingest(str(source), output, load(settings=settings), inline=True).exit_code == 0
    blocks = pagemill.read(output, "blocks").to_pylist()
    assert [(block["source"], block["rung"], block["tokens"]) for block in blocks] == [("text_layer", None, None)] * 3
    assert all("says" in block["content"] for block in blocks)


def test_bad_regions_cost_blocks_and_no_page() -> None:
    """1 px, a line 6,000 times as long as wide, 20,000 px, one colour, outside the page: through crop, pack and finish."""
    config = load(settings=["recognize.engine=tests.engines:Digest"])
    pixels = np.full((20_000, 600, 3), 255, np.uint8)
    pixels[::7, 100:500] = 40
    pixels[5000:6000] = 200
    regions = [
        Region("text", Box(0, 10_000, 600, 20_000), 1.0),
        Region("text", Box(10, 100, 11, 101), 1.0),
        Region("text", Box(100, 1000, 107, 4900), 1.0),
        Region("text", Box(300, 10, 590, 17), 1.0),
        Region("text", Box(0, 5100, 600, 5900), 1.0),  # grey, nothing else
        Region("text", Box(700, 100, 900, 200), 1.0),
        Region("table", Box(100, 7000, 500, 7400), 1.0),
        Region("figure", Box(0, 9000, 600, 9300), 1.0),
    ]
    patches = PatchFormat((0.5,) * 3, (0.5,) * 3)
    form = form_of(config, Identity("vllm/x", "", patches))
    asked: list[Crop] = []

    class Taking(Digest):
        async def answer(self, crop: Crop) -> Answer:
            asked.append(crop)
            return Answer("<fcel>a<fcel>b<nl>" if crop.task == "table" else "text", tokens=3)

    page = PageWork("doc", 0, raster=RasterPage(pixels, 144, 300, 10_000), regions=regions)
    page.height_px, page.width_px, page.dpi = 20_000, 600, 144.0
    work = SpanWork(Span("doc", 1, (0,), "uri", 1, "pdf"), "attempt", [page])
    CropPages(config, form).crop(work)
    assert page.error is None
    assert page.raster is not None
    assert page.raster.pixels.size == 0  # no page image goes to an engine
    asyncio.run(ReadCrops(config, Taking(config), form).recognize(work))
    FinishPages(config, "x", "w").finish(work)
    assert page.error is None
    assert asked
    for crop in asked:
        assert crop.packed is not None
        assert crop.pixels.size == 0
        rows, columns = crop.packed.grid[1:]
        assert 112_896 <= rows * columns * 14 * 14 <= 1_003_520 or max(rows, columns) > 100 * min(rows, columns)
    codes = {tuple(block.box_px): block.error_code for block in page.blocks}
    assert codes[(0, 5100, 600, 5900)] == "REGION_BLANK"
    assert codes[(700, 100, 900, 200)] == "REGION_UNREADABLE"
    assert codes[(10, 100, 11, 101)] == "REGION_UNREADABLE"
    table = next(block for block in page.blocks if block.label == "table")
    assert table.html == "<table><tr><td>a</td><td>b</td></tr></table>"
    figure = next(block for block in page.blocks if block.label == "figure")
    assert figure.image == page.figures[0].name
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(page.figures[0].data)).convert("RGB")).shape[:2], (300, 600))
