"""PP-DocLayoutV2/V3 in PyTorch, on small random checkpoints of the true form. Runs where torch is (the vLLM environment)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.config import load
from pipelines.layout.detect import DetectLayout, load_engine
from pipelines.layout.labels import OFFICIAL_LABELS
from pipelines.layout.unwarp import load_unwarper
from pipelines.options import canonical, with_options
from pipelines.schema import PageWork, RasterPage, Region, Span, SpanWork
from tests.layout import tiny_uvdoc, unwarped_page
from tests.layout.tiny_doclayout import build

pytest.importorskip("torch", reason="PyTorch is in the vLLM environment only")
pytest.importorskip("transformers", reason="transformers is in the vLLM environment only")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: tmp_path_factory.mktemp(kind) for kind in ("v2", "v3")}
    for kind, folder in made.items():
        build(kind, folder)
    return made


def page(width: int, height: int, seed: int) -> RasterPage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return RasterPage(pixels, 144, width / 2, height / 2)


def engine(folder: Path, *settings: str) -> Any:
    chosen = [
        "layout.engine=transformers",
        f"layout.model_dir={folder}",
        "layout.device=cpu",
        "paddleocr_vl.layout_threshold=0.2",
    ]
    return load_engine(load(settings=[*chosen, *settings]))


def detect(folder: Path, pages: list[RasterPage], *settings: str) -> list[list[Region]]:
    found: list[list[Region]] = engine(folder, *settings).detect(pages)
    return found


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_regions_lie_in_their_page_in_reading_order(models: dict[str, Path], kind: str) -> None:
    pages = [page(700, 900, 1), page(1200, 500, 2)]
    for found, seen in zip(detect(models[kind], pages), pages, strict=True):
        assert found
        height, width = seen.pixels.shape[:2]
        assert all(0 <= r.box.x0 < r.box.x1 <= width and 0 <= r.box.y0 < r.box.y1 <= height for r in found)
        assert all(r.native_label in OFFICIAL_LABELS and 0.2 < r.score <= 1 for r in found)
        orders = [r.order for r in found if r.order is not None]
        assert orders == list(range(1, len(orders) + 1))


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_a_page_does_not_see_its_neighbours(models: dict[str, Path], kind: str) -> None:
    pages = [page(700, 900, 1), page(1200, 500, 2), page(80, 60, 3)]
    together = detect(models[kind], pages)
    for alone, among in zip((detect(models[kind], [one])[0] for one in pages), together, strict=True):
        assert [(r.native_label, r.box, r.order) for r in alone] == [(r.native_label, r.box, r.order) for r in among]


def test_outlines_are_asked_for(models: dict[str, Path]) -> None:
    pages = [page(700, 900, 1)]
    (rect,) = detect(models["v3"], pages, "paddleocr_vl.layout_shape_mode=rect")
    (poly,) = detect(models["v3"], pages, "paddleocr_vl.layout_shape_mode=poly")
    assert not any(region.polygon for region in rect)
    assert all(len(region.polygon) >= 4 for region in poly)
    assert [region.box for region in rect] == [region.box for region in poly]


def test_documents_with_options_of_their_own_share_the_model(models: dict[str, Path]) -> None:
    """Through the stage: each page with its document's options, whoever else is in the block."""
    chosen = [f"layout.model_dir={models['v3']}", "layout.engine=transformers", "layout.device=cpu", "layout.upright=never"]
    config = load(settings=[*chosen, "paddleocr_vl.layout_threshold=0.1", "paddleocr_vl.layout_merge_bboxes_mode=union"])
    options = ["", canonical(config, {"layout_threshold": 0.95}), canonical(config, {"layout_shape_mode": "rect"})]

    def work(own: str) -> SpanWork:
        pages = [PageWork("d", number, raster=page(300, 400, number)) for number in range(3)]
        return SpanWork(Span("d", 1, (0, 1, 2), "u", 3, "pdf", options=own), "a", pages)

    def regions(done: SpanWork) -> list[list[Region] | None]:
        return [page.regions for page in done.pages]

    stage = DetectLayout(config)
    together = stage.detect([work(own) for own in options])
    alone = [DetectLayout(with_options(config, own)).detect([work("")])[0] for own in options]
    assert [regions(done) for done in together] == [regions(done) for done in alone]
    assert len({str(regions(done)) for done in together}) == 3
    assert len({id(engine._model) for engine in stage._engines.values()}) == 1  # type: ignore[attr-defined]
    assert regions(stage.detect([work("")])[0]) == regions(alone[0])  # the others left no trace


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_rows_are_what_the_outputs_mean(models: dict[str, Path], kind: str) -> None:
    """Against the definition, pair by pair: a query comes before another as often as the order head says so."""
    import torch
    from transformers import AutoModelForObjectDetection

    from pipelines.layout.network import resized

    batch = resized(page(640, 480, 5).pixels, np.empty((800, 800, 3), np.uint8))[None]
    ours = engine(models[kind])._model
    (found,) = ours.end(ours.begin([page(640, 480, 5).pixels], 0.5, outlines=False))
    assert found.masks is None
    rows = found.rows
    with torch.inference_mode():
        upstream = AutoModelForObjectDetection.from_pretrained(models[kind]).eval()
        told = upstream(pixel_values=torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
    logits, boxes, before = (np.asarray(x[0], np.float64) for x in (told.logits, told.pred_boxes, told.order_logits))
    count = len(logits)
    before = 1 / (1 + np.exp(-np.clip(before, -700, 700)))
    votes = [sum(before[i, j] if i < j else 1 - before[j, i] for i in range(count) if i != j) for j in range(count)]
    scores = 1 / (1 + np.exp(-logits))
    for row, flat in zip(rows, np.argsort(-scores.ravel())[:count], strict=True):
        query, label = divmod(int(flat), logits.shape[1])
        x, y, w, h = boxes[query] * [640, 480, 640, 480]
        assert row[1] == pytest.approx(scores[query, label], abs=1e-5)
        nearly = [q for q in range(count) if abs(scores[q, int(row[0])] - row[1]) < 1e-5]
        assert query in nearly or label != row[0]  # queries whose scores nearly tie may change places
        if nearly == [query]:
            np.testing.assert_allclose(row[2:6], [x - w / 2, y - h / 2, x + w / 2, y + h / 2], atol=2e-2)
            assert row[7] == pytest.approx(votes[query], abs=1e-3)
            surely = sum(v < votes[query] - 1e-3 for v in votes)
            assert surely <= row[6] <= surely + sum(abs(v - votes[query]) <= 1e-3 for v in votes)


def test_constants_are_read_not_assumed(models: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint with another mean, another input size or other names gives other regions, or says what is wrong."""
    altered = tmp_path / "altered"
    altered.mkdir()
    for file in models["v3"].iterdir():
        (altered / file.name).write_bytes(file.read_bytes())
    pages = [page(700, 900, 1)]
    before = detect(models["v3"], pages)
    processor = json.loads((altered / "preprocessor_config.json").read_text())
    (altered / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": [0.5] * 3, "image_std": [0.2] * 3}))
    assert [r.score for r in detect(altered, pages)[0]] != [r.score for r in before[0]]
    told = yaml.safe_load((altered / "inference.yml").read_text())
    told["label_list"] = list(reversed(told["label_list"]))
    (altered / "inference.yml").write_text(yaml.safe_dump(told))
    (altered / "preprocessor_config.json").write_text(json.dumps(processor))
    assert sorted(r.native_label for r in detect(altered, pages, "paddleocr_vl.layout_merge_bboxes_mode=union")[0]) == sorted(
        OFFICIAL_LABELS[24 - OFFICIAL_LABELS.index(r.native_label)]
        for r in detect(models["v3"], pages, "paddleocr_vl.layout_merge_bboxes_mode=union")[0]
    )


def test_uvdoc_moves_a_pages_pixels_and_sees_it_in_the_size_of_its_file(tmp_path: Path) -> None:
    tiny_uvdoc.build(tmp_path)
    config = load(settings=[f"paddleocr_vl.doc_unwarping_model_dir={tmp_path}", "layout.device=cpu"])
    page, flat = unwarped_page.page(), load_unwarper(config).flat(unwarped_page.page())
    assert (flat.shape, flat.dtype) == (page.shape, page.dtype)
    assert (flat != page).mean() > 0.5
    told = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told | {"size": {"height": 356, "width": 244}}))
    assert (load_unwarper(config).flat(page) != flat).any()
