"""The official form out of a whole run: listing, drawing, layout, crops, answers, blocks, Parquet, export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.assemble.official.markdown import page_markdown
from pipelines.assemble.official.page import official_page, pruned_result
from pipelines.config import load
from pipelines.ingest import ingest
from pipelines.layout.postprocess import PostOptions, postprocess
from pipelines.recognize.crops import plan_crops
from pipelines.schema import RasterPage
from tests.parity import drawing, engines


@pytest.mark.parametrize("strict", [False, True])
def test_a_run_exports_what_the_answers_make(tmp_path: Path, strict: bool) -> None:
    settings = [
        "layout.engine=tests.parity.engines:Layout", "recognize.engine=tests.parity.engines:Reader", "recognize.text_layer=off",
        f"paddleocr_vl.strict_parity={str(strict).lower()}", "paddleocr_vl.use_seal_recognition=true",
    ]  # fmt: skip
    config = load(settings=settings)
    (tmp_path / "in").mkdir()
    wanted = {}
    for case in engines.chosen():
        width, height = case["wh"]
        pixels = drawing.page(case["seed"], width, height)
        dpi = 300 if strict else 144  # the official code looks at no resolution: with 300 the page would come out half as large
        Image.fromarray(pixels).save(tmp_path / "in" / f"w{width}.png", dpi=(dpi, dpi))
        regions = postprocess(case["rows"], width, height, PostOptions.of(config.paddleocr_vl))
        raster = RasterPage(pixels, 144.0, width / 2, height / 2)
        crops = plan_crops(raster, regions, config.paddleocr_vl)
        answers = {crop.regions[0]: engines.answer_to(crop) for crop in crops}
        wanted[f"w{width}"] = official_page(regions, answers, width, height, config.paddleocr_vl)
    assert len(wanted) >= 3
    assert sum(len(page.blocks) for page in wanted.values()) > 10
    ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "out"), str(tmp_path / "files"), "--as", "paddleocr"])
    assert done.exit_code == 0, done.output
    for stem, page in wanted.items():
        (saved,) = (tmp_path / "files").glob(f"{stem}-*/{stem}_res.json")
        told = json.loads(saved.read_text("utf-8"))
        assert told.pop("input_path").endswith(f"{stem}.png")
        assert told.pop("page_index") is None
        for name in ("input_path", "page_index"):
            told["layout_det_res"].pop(name)
        assert told == json.loads(json.dumps(pruned_result(page, config.paddleocr_vl))), stem
        assert (saved.parent / f"{stem}.md").read_bytes().decode() == page_markdown(page, config.paddleocr_vl)
        shown = {block.image for block in page.blocks if block.image}
        assert shown <= {str(path.relative_to(saved.parent)) for path in saved.parent.glob("imgs/*")}
