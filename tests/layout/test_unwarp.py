"""Flattened pages: which they are, what stays behind, what is recorded of them, and what is said where no model is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pagemill
from pipelines.assemble.official.document import one_result
from pipelines.assemble.official.page import pruned_result
from pipelines.assemble.official.stored import stored_page
from pipelines.config import Config, load
from pipelines.errors import ConfigError, ExitCode
from pipelines.export.paddleocr import saved_form
from pipelines.ingest import fingerprint_of, ingest
from pipelines.layout import detect
from pipelines.layout.detect import DetectLayout
from pipelines.layout.unwarp import unwarper_of
from pipelines.observe.pages import PageDrawer
from pipelines.schema import Box, PageWork, Pixels, RasterPage, Span, SpanWork, Word

WORD = Word("w", Box(1, 1, 5, 5), 0, 10.0)


class Mirror:
    """Stands for a UVDoc: what is left comes from the right."""

    weights = "m"

    def flat(self, pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 13:
            raise RuntimeError("cannot look at this")
        return np.ascontiguousarray(pixels[:, ::-1])


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "pipelines.layout.detect.unwarper_of",
        "pipelines.ingest.unwarper_of",
        "pipelines.observe.pages.load_unwarper",
    ):
        monkeypatch.setattr(module, lambda config: Mirror() if config.paddleocr_vl.use_doc_unwarping else None)


def options(*more: str) -> Config:
    return load(settings=["layout.engine=none", "recognize.engine=echo", "paddleocr_vl.use_doc_unwarping=true", *more])


def detected(config: Config, first: int = 0, **raster: tuple[Word, ...]) -> PageWork:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[0, 0] = first
    pixels[:, 7] = 200
    page = PageWork("d", 0, raster=RasterPage(pixels, 72, 8, 6, **raster))
    DetectLayout(config).detect([SpanWork(Span("d", 1, (0,), "u", 1, "pdf"), "a", [page])])
    return page


@pytest.mark.usefixtures("mirror")
def test_a_photographed_page_is_flattened_and_its_layer_stays_behind() -> None:
    page = detected(options(), hidden_words=(WORD,))
    assert page.raster is not None
    assert page.unwarped
    assert page.raster.pixels[0, 0, 0] == 200
    assert (page.raster.hidden_words, page.raster.pixels.shape) == ((), (6, 8, 3))


@pytest.mark.usefixtures("mirror")
def test_a_page_with_painted_text_is_flat_already_unless_parity_is_strict() -> None:
    page = detected(options(), words=(WORD,))
    assert (page.unwarped, page.raster and page.raster.words) == (False, (WORD,))
    strict = detected(options("paddleocr_vl.strict_parity=true"), words=(WORD,))
    assert (strict.unwarped, strict.raster and strict.raster.words) == (True, ())


@pytest.mark.usefixtures("mirror")
def test_a_page_that_cannot_be_flattened_fails_alone() -> None:
    page = detected(options(), first=13)
    assert page.error is not None
    assert (page.error.code, page.regions) == ("ENGINE_FAILED", None)
    assert "unwarping: RuntimeError: cannot look at this" in page.error.message


@pytest.mark.usefixtures("mirror")
def test_what_is_stored_shown_and_exported(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "photo.png")
    config = options()
    ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True)
    (row,) = pagemill.read(str(tmp_path / "out"), "pages").to_pylist()
    assert row["unwarped"] is True
    with PageDrawer(config) as drawer:
        assert (drawer.draw(row, str(tmp_path / "in" / "photo.png")) == pixels[:, ::-1]).all()
    result = pruned_result(stored_page(row, config.paddleocr_vl)[0], config.paddleocr_vl)
    used = {"use_doc_orientation_classify": False, "use_doc_unwarping": True}
    assert result["doc_preprocessor_res"] == {"model_settings": used, "angle": -1}
    assert result["model_settings"]["use_doc_preprocessor"] is True
    saved = saved_form(result, "photo.png", None)["doc_preprocessor_res"]
    assert list(saved) == ["input_path", "page_index", "model_settings", "angle"]
    whole = one_result([stored_page(row, config.paddleocr_vl)[0]] * 2, config.paddleocr_vl)
    assert whole["doc_preprocessor_res"] == [result["doc_preprocessor_res"]] * 2
    assert fingerprint_of(config) != fingerprint_of(options("paddleocr_vl.use_doc_unwarping=false"))


def test_without_a_model_the_line_to_type_is_said(tmp_path: Path) -> None:
    assert unwarper_of(load()) is None
    with pytest.raises(ConfigError, match=r"--set paddleocr_vl\.doc_unwarping_model_dir=DIR"):
        unwarper_of(options())
    with pytest.raises(ConfigError, match="no folder"):
        unwarper_of(options(f"paddleocr_vl.doc_unwarping_model_dir={tmp_path / 'none'}"))
    with pytest.raises(ConfigError, match=r"--set layout\.engine=paddle"):
        unwarper_of(options(f"paddleocr_vl.doc_unwarping_model_dir={tmp_path}"))


def test_an_engine_that_is_not_there_ends_the_run_and_fails_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        name, weights, batch_pages = "absent", "", 1

        def detect(self, pages: list[RasterPage]) -> None:
            raise ConfigError("No module named 'paddlex'")

    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(tmp_path / "in" / "a.png")
    monkeypatch.setattr(detect, "load_engine", lambda config: Absent())
    ended = ingest(str(tmp_path / "in"), str(tmp_path / "out"), load(settings=["recognize.engine=echo"]), inline=True)
    assert (ended.exit_code, ended.summary.pages["failed"]) == (ExitCode.BAD_CONFIG, 0)
    assert "paddlex" in ended.summary.message
