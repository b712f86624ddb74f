"""From rows of a layout model to regions: what no vector covers, and rows that no model should give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.layout.labels import OFFICIAL_LABELS, own_label
from pipelines.layout.overlap import keep
from pipelines.layout.postprocess import PostOptions, detection_record, postprocess
from pipelines.schema import LABELS, Box, Region

OPTIONS = PostOptions.of(load().paddleocr_vl)
TEXT, IMAGE, TABLE = (float(OFFICIAL_LABELS.index(label)) for label in ("text", "image", "table"))


def found(rows: list[list[float]], options: PostOptions = OPTIONS, masks: list[np.ndarray] | None = None) -> list[Region]:
    return postprocess(rows, 1000, 1400, options, masks)


def test_every_official_label_has_a_word_of_ours() -> None:
    assert {own_label(label) for label in OFFICIAL_LABELS} <= set(LABELS)


def test_the_threshold_is_exclusive_in_the_models_own_precision() -> None:
    assert found([[TEXT, float(np.float32(0.3)), 10, 10, 100, 100, 0]]) == []
    assert len(found([[TEXT, 0.31, 10, 10, 100, 100, 0]])) == 1


def test_versions_differ_in_thresholds() -> None:
    row = [TEXT, 0.35, 10, 10, 100, 100, 0]
    v1 = PostOptions.of(load(settings=["paddleocr_vl.pipeline_version=v1"]).paddleocr_vl)
    assert (len(found([row], v1)), len(found([row]))) == (0, 1)


def test_nms_can_be_switched_off_here() -> None:
    rows = [[TEXT, 0.9, 10, 10, 100, 100, 0], [TEXT, 0.8, 11, 11, 101, 101, 1]]
    assert (len(found(rows)), len(found(rows, replace(OPTIONS, nms=False)))) == (1, 2)


def test_equal_scores_and_ranks_have_one_order_on_every_processor() -> None:
    """NumPy's own sort, which the official code takes, keeps no order among equals: in another way with AVX2 than without."""
    tops = [20.0 * n for n in range(60)]
    scores = [float(np.float32((0.9, 0.8, 0.7)[n * n % 7 % 3])) for n in range(60)]
    rows = [[TEXT, s, 10, t, right, t + 15, 1] for s, t in zip(scores, tops, strict=True) for right in (500, 501)]
    regions = found(rows)
    assert [region.box.x1 for region in regions] == [501] * 60  # of equal boxes the later one
    best_first = sorted(zip(scores, tops, strict=True), reverse=True)
    assert [(region.score, region.box.y0) for region in regions] == best_first


def test_an_image_of_the_whole_page_goes_unless_it_is_alone() -> None:
    page = [IMAGE, 0.9, 0, 0, 1000, 1400, 0]
    assert [region.native_label for region in found([page])] == ["image"]
    assert [region.native_label for region in found([page, [TEXT, 0.9, 10, 10, 100, 100, 1]])] == ["text"]


def test_a_grown_box_stays_on_the_page() -> None:
    (region,) = found([[TEXT, 0.9, 0, 0, 900, 100, 0]], replace(OPTIONS, unclip=(2.0, 1.0)))
    assert region.box == (0, 0, 1000, 100)


def test_outlines_need_masks_and_a_shape_mode() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[20:40, 20:100] = 1
    mask[40:60, 20:60] = 1  # an L
    row = [TEXT, 0.9, 100, 140, 500, 420, 0]
    assert found([row])[0].polygon == ()
    assert found([row], replace(OPTIONS, shape="rect"), [mask])[0].polygon == ()
    outline = found([row], replace(OPTIONS, shape="poly"), [mask])[0].polygon
    assert len(outline) == 6
    assert len(found([row], replace(OPTIONS, shape="quad"), [mask])[0].polygon) == 4
    assert detection_record(found([row], replace(OPTIONS, shape="poly"), [mask]))[0]["polygon_points"] == [
        [x, y] for x, y in outline
    ]


def test_a_list_of_references_without_entries_is_kept_but_in_strict_parity() -> None:
    regions = [Region("reference", Box(0, 0, 100, 100), 0.9, "reference"), Region("text", Box(0, 200, 100, 300), 0.9, "text")]
    labels = ["reference", "text"]
    assert keep(regions, labels, False, strict=False) == [0, 1]
    assert keep(regions, labels, False, strict=True) == [1]
    entry = Region("reference", Box(0, 10, 100, 30), 0.9, "reference_content")
    assert keep([*regions, entry], [*labels, "reference_content"], False, strict=False) == [1, 2]


@pytest.mark.parametrize(
    "setting",
    [
        "layout_threshold=2",
        "layout_merge_bboxes_mode=huge",
        "layout_shape_mode=circle",
        "top_p=0",
        "max_pixels=100",
        "vlm_extra_args={table_min_pixels: 2000000}",
    ],
)
def test_options_out_of_range_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError):
        load(settings=[f"paddleocr_vl.{setting}"])


ODD = st.one_of(st.floats(-5000, 25000, width=32), st.sampled_from([float("nan"), float("inf"), 0.0, -1.0, 1e30]))
ROWS = st.lists(
    st.tuples(st.integers(-1, 26).map(float), st.floats(0, 1, width=32), ODD, ODD, ODD, ODD, st.integers(0, 300).map(float)),
    max_size=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ROWS, st.sampled_from(["auto", "rect", "quad", "poly"]), st.booleans(), st.integers(0, 2**31))
def test_no_rows_raise(rows: list[tuple[float, ...]], shape: str, strict: bool, seed: int) -> None:
    masks = list((np.random.default_rng(seed).random((len(rows), 200, 200)) > 0.6).astype(np.uint8))
    options = replace(OPTIONS, shape=shape, strict=strict)
    regions = postprocess([list(row) for row in rows], 1000, 1400, options, masks)
    for region in regions:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= 1000
        assert 0 <= y0 < y1 <= 1400
    counted = [region.order for region in regions if region.order is not None]
    assert counted == list(range(1, len(counted) + 1))
    kept = keep(regions, [region.native_label for region in regions], shape != "rect", strict)
    assert kept == sorted(set(kept))
