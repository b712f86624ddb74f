"""A page on its way to a vision-language model and back: crops and blocks, on inputs that should not be but are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import PaddleOcrVlConfig, load
from pipelines.layout.labels import OFFICIAL_LABELS, own_label
from pipelines.recognize.base import Answer, Crop, Reading
from pipelines.recognize.crops import plan_crops
from pipelines.recognize.pack import pack
from pipelines.recognize.repair import finish
from pipelines.schema import Box, RasterPage, Region


def options(**given: object) -> PaddleOcrVlConfig:
    return load().paddleocr_vl.model_copy(update=given)


def page(width: int = 600, height: int = 800) -> RasterPage:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    return RasterPage(pixels, 144.0, width / 2, height / 2)


def region(label: str, *box: float) -> Region:
    return Region(own_label(label), Box(*box), 0.9, label)


def read(raster: RasterPage, regions: list[Region], said: dict[str, str | Answer], config: PaddleOcrVlConfig) -> Reading:
    """A page whose model answers by prompt."""
    crops = plan_crops(raster, regions, config)
    answers = [found if isinstance(found := said[crop.prompt], Answer) else Answer(found) for crop in crops]
    return finish(raster, regions, crops, answers, config, "model", "0123")


def asked(regions: list[Region], raster: RasterPage | None = None, **given: object) -> list[Crop]:
    return plan_crops(raster or page(), regions, options(**given))


def test_each_label_is_asked_its_question() -> None:
    boxes = [(10.0 + 30 * (n % 10) * 2, 10.0 + 60 * (n // 10) * 2) for n in range(len(OFFICIAL_LABELS))]
    regions = [region(label, x, y, x + 40, y + 40) for label, (x, y) in zip(OFFICIAL_LABELS, boxes, strict=True)]
    prompts = {regions[crop.regions[0]].native_label: crop.prompt for crop in asked(regions)}
    assert set(OFFICIAL_LABELS) - set(prompts) == {"image", "header_image", "footer_image", "chart", "seal"}
    assert prompts["table"] == "Table Recognition:"
    assert {label for label, prompt in prompts.items() if prompt == "Formula Recognition:"} == {
        "display_formula",
        "inline_formula",
    }
    every = asked(regions, use_chart_recognition=True, use_seal_recognition=True, use_ocr_for_image_block=True)
    assert {regions[crop.regions[0]].native_label for crop in every} == set(OFFICIAL_LABELS)
    assert {crop.task for crop in every} == {"ocr", "table", "formula", "chart", "seal"}


def test_budgets_and_sampling_reach_the_crop() -> None:
    extra = {"table_max_pixels": 50_000}
    table, text = asked(
        [region("table", 0, 0, 300, 100), region("text", 0, 200, 300, 300)],
        vlm_extra_args=extra, temperature=0.5, top_p=0.9, max_new_tokens=7, min_pixels=3136,
    )  # fmt: skip
    assert (table.min_pixels, table.max_pixels, text.max_pixels) == (3136, 50_000, 1_003_520)
    assert (text.sampling.temperature, text.sampling.top_p, text.sampling.max_tokens) == (0.5, 0.9, 7)


def test_columns_that_go_on_are_one_question() -> None:
    regions = [region("text", 10, 100, 290, 700), region("text", 310, 100, 590, 300)]
    (crop,) = asked(regions)
    assert crop.regions == (0, 1)
    assert crop.pixels.shape == (800, 280, 3)
    assert len(asked(regions, merge_layout_blocks=False)) == 2
    blocks = read(page(), regions, {"OCR:": "both columns"}, options()).blocks
    assert [block.content for block in blocks] == ["both columns", ""]
    assert [block.error_code for block in blocks] == [None, None]


def test_a_figure_in_a_table_is_shown_in_it_once() -> None:
    regions = [region("table", 0, 0, 400, 300), region("image", 50, 50, 150, 150)]
    reading = read(page(), regions, {"Table Recognition:": "<fcel>a<fcel>[F2]<nl>"}, options())
    (block,) = reading.blocks
    (figure,) = reading.figures
    assert block.html == f'<table><tr><td>a</td><td><img src="{figure.name}" alt="Image" /></td></tr></table>'
    assert block.raw == "<fcel>a<fcel>[F2]<nl>"


def test_a_figure_whose_token_the_model_forgot_is_not_lost() -> None:
    regions = [region("table", 0, 0, 400, 300), region("image", 50, 50, 150, 150), region("image", 200, 10, 215, 25)]
    reading = read(page(), regions, {"Table Recognition:": "<fcel>a<nl>"}, options())
    assert [block.label for block in reading.blocks] == ["table", "figure", "figure"]
    assert len(reading.figures) == 2
    strict = read(page(), regions, {"Table Recognition:": "<fcel>a<nl>"}, options(strict_parity=True))
    assert [block.label for block in strict.blocks] == ["table"]  # as the official code has it


@pytest.mark.parametrize(
    ("label", "said", "content", "level"),
    [
        ("text", "a \\(x\\) b $5", "a \\(x\\) b $5", None),
        ("display_formula", "$$ x^2 $$", "\\[x^2\\]", None),
        ("display_formula", "x^2", "\\[x^2\\]", None),
        ("inline_formula", "$x$", "\\(x\\)", None),
        ("formula_number", "\\((1)\\)", "(1)", None),
        ("doc_title", "A", "A", 1),
        ("paragraph_title", "1.2 A", "1.2 A", 3),
        ("paragraph_title", "A. B.", "A. B.", 2),
    ],
)
def test_formulas_and_titles_in_our_own_form(label: str, said: str, content: str, level: int | None) -> None:
    asked_as = "Formula Recognition:" if label.endswith("_formula") else "OCR:"
    (block,) = read(page(), [region(label, 0, 0, 200, 100)], {asked_as: said}, options()).blocks
    assert (block.content, block.level) == (content, level)


def test_what_stands_in_a_figure_of_a_table_is_text() -> None:
    regions = [region("table", 0, 0, 400, 300), region("image", 50, 50, 150, 150)]
    said = {"Table Recognition:": "<fcel>[F2]<nl>", "OCR:": "<script>x</script>"}
    (block,) = read(page(), regions, said, options(use_ocr_for_image_block=True)).blocks
    assert block.html is not None
    assert "&lt;script&gt;" in block.html
    assert "<script>" not in block.html


def test_prices_in_tables_are_not_escaped() -> None:
    said = {"Table Recognition:": "<fcel>\\(x\\)<fcel>$5<nl>"}
    (block,) = read(page(), [region("table", 0, 0, 200, 100)], said, options()).blocks
    assert block.html == "<table><tr><td>$ x $</td><td>$5</td></tr></table>"


def test_a_long_thin_crop_is_padded_until_the_model_takes_it() -> None:
    (crop,) = asked([region("text", 0, 0, 4000, 7)], page(4000, 100))
    assert max(crop.pixels.shape[:2]) / min(crop.pixels.shape[:2]) < 200
    assert pack(crop.pixels, crop.min_pixels, crop.max_pixels).grid[0] == 1


def test_twenty_thousand_pixels() -> None:
    regions = [region("text", 0, 0, 20000, 60), region("display_formula", 0, 70, 20000, 78), region("text", 0, 79, 90, 100)]
    crops = asked(regions, page(20000, 100))
    assert [crop.regions for crop in crops] == [(0,), (1,), (2,)]
    for crop in crops:
        _, down, across = pack(crop.pixels, crop.min_pixels, crop.max_pixels).grid
        assert down * across * 14 * 14 <= max(crop.max_pixels, 28 * 28 * 200)


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((10, 10, 11, 11), "REGION_UNREADABLE"),
        ((700, 900, 800, 1000), "REGION_UNREADABLE"),
        ((-50, -50, -10, -10), "REGION_UNREADABLE"),
        ((100, 100, 50, 50), "REGION_UNREADABLE"),
        ((float("nan"), 0, 10, 10), "REGION_UNREADABLE"),
        ((300, 300, 400, 400), "REGION_BLANK"),
    ],
)
def test_a_region_that_cannot_be_read_is_a_block_that_says_why(box: tuple[float, ...], code: str) -> None:
    raster = page()
    raster.pixels[300:400, 300:400] = 255
    reading = read(raster, [region("text", *box), region("text", 10, 600, 200, 700)], {"OCR:": "good"}, options())
    assert {block.error_code for block in reading.blocks} == {code, None}
    assert [block.content for block in reading.blocks if block.error_code is None] == ["good"]


@pytest.mark.parametrize(
    ("label", "answer", "code", "finish"),
    [
        ("text", Answer(""), "ANSWER_EMPTY", "stop"),
        ("text", Answer("half a sen", finish_reason="length"), "ANSWER_TRUNCATED", "length"),
        ("text", Answer("caf\ufffd \udce9"), "ANSWER_GARBLED", "stop"),
        ("text", Answer("abcdefgh" * 40), None, "repetition"),
        ("text", Answer("", "error", error_code="ENGINE_FAILED"), "ENGINE_FAILED", "error"),
        ("table", Answer("no table at all"), "TABLE_MALFORMED", "stop"),
        ("table", Answer("<fcel>a<fcel>b<nl><fcel>"), None, "stop"),
    ],
)
def test_bad_answers_cost_their_block_only(label: str, answer: Answer, code: str | None, finish: str) -> None:
    said: dict[str, str | Answer] = {"OCR:": "good", "Table Recognition:": answer}
    if label == "text":
        said = {"OCR:": answer, "Table Recognition:": "<fcel>good<nl>"}
    reading = read(page(), [region("text", 0, 0, 200, 100), region("table", 0, 200, 200, 300)], said, options())
    bad, good = sorted(reading.blocks, key=lambda block: block.label != label)
    assert (bad.error_code, bad.finish_reason) == (code, finish)
    assert good.error_code is None
    assert "good" in good.content
    assert bool(reading.flags) == (code is not None or finish == "repetition")
    bad.content.encode("utf-8")
    assert bad.raw == answer.text or bad.content == answer.text


def test_strict_parity_codes_crops_as_jpeg() -> None:
    """A crop as the official client sends it: JPEG of quality 75 loses something, once and the same each time."""
    regions = [region("text", 0, 0, 200, 100)]
    (plain,), (strict,), (again,) = asked(regions), asked(regions, strict_parity=True), asked(regions, strict_parity=True)
    assert plain.pixels.shape == strict.pixels.shape
    assert (plain.pixels != strict.pixels).any()
    assert np.array_equal(strict.pixels, again.pixels)


BOX = st.tuples(*[st.one_of(st.floats(-100, 900), st.sampled_from([float("nan"), float("inf"), 0.0]))] * 4)
REGIONS = st.lists(st.tuples(st.sampled_from([*OFFICIAL_LABELS, "ocr", "spotting", "", "unheard of"]), BOX), max_size=8)
ANSWER = st.one_of(st.text(max_size=80), st.sampled_from(["<fcel>a<fcel>[F2]<nl>", "\\[x\\]", "[F3]", "a|b\n1|2", "\ud800"]))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(REGIONS, st.lists(ANSWER, min_size=1, max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_no_page_raises(found: list[tuple[str, Box]], said: list[str], strict: bool, read_all: bool, merge: bool) -> None:
    raster = page(300, 400)
    config = options(strict_parity=strict, use_chart_recognition=read_all, use_seal_recognition=read_all,
                     use_ocr_for_image_block=read_all, merge_layout_blocks=merge)  # fmt: skip
    regions = [Region(own_label(label), Box(*box), 0.5, label) for label, box in found]
    crops = plan_crops(raster, regions, config)
    reading = finish(raster, regions, crops, [Answer(said[n % len(said)]) for n in range(len(crops))], config)
    for crop in crops:
        assert crop.pixels.flags["C_CONTIGUOUS"]
        assert pack(crop.pixels, crop.min_pixels, crop.max_pixels).patches.size
    assert {name for block in reading.blocks if (name := block.image)} <= {figure.name for figure in reading.figures}
    assert len({figure.name for figure in reading.figures}) == len(reading.figures)
