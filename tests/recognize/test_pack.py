"""Crops as patches. Equality with the Hugging Face processor needs `transformers`, which the vLLM environment has."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import UnusableCrop
from pipelines.recognize.pack import PatchFormat, byte_table, normalise, pack, target_size
from pipelines.schema import Pixels

BUDGET = (112_896, 1_003_520)
CLIP = PatchFormat((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = PatchFormat((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SIZES = [(1, 1), (3, 23), (23, 3), (40, 500), (300, 900), (800, 1200), (5, 900), (2600, 2000), (30, 5000), (28, 28), (336, 336)]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_each_patch_is_its_place_in_the_picture() -> None:
    pixels = noise(56 * 7, 28 * 11)
    packed = pack(pixels, 0, 10**9)  # its size is a multiple of 28: nothing is scaled
    assert packed.grid == (1, 28, 22)
    assert packed.patches.flags.c_contiguous
    for n in (0, 21, 22, 28 * 22 - 1):
        row, column = divmod(n, 22)
        place = pixels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
        assert (packed.patches[n] == place.transpose(2, 0, 1)).all()


def test_a_view_of_a_page_packs_like_its_copy() -> None:
    page = noise(500, 700)
    view = page[40:340:1, 50:650]
    assert (pack(view, *BUDGET).patches == pack(view.copy(), *BUDGET).patches).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sizes_stay_in_the_budget(height: int, width: int) -> None:
    down, across = target_size(height, width, *BUDGET)
    assert down % 28 == across % 28 == 0
    assert BUDGET[0] <= down * across <= BUDGET[1]


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (28, 5601), (6000, 28), (4, 900), (20_000, 20)])
def test_what_no_model_takes_is_named(height: int, width: int) -> None:
    with pytest.raises(UnusableCrop):
        pack(np.zeros((height, width, 3), np.uint8), *BUDGET)


def test_a_preprocessor_configuration_is_read_or_refused() -> None:
    published = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 1}
    assert PatchFormat.of(published) == HALF
    with pytest.raises(KeyError):
        PatchFormat.of({"image_mean": [0.5] * 3})
    for bad in ({"temporal_patch_size": 2}, {"do_normalize": False}, {"image_std": [0.5]}):
        with pytest.raises(ValueError, match=r"known|three"):
            PatchFormat.of(published | bad)


@pytest.mark.parametrize("form", [CLIP, HALF])
def test_normalised_values_are_the_processors(form: PatchFormat) -> None:
    """Against its arithmetic, written out; the next test has the processor itself."""
    packed = pack(noise(60, 90), *BUDGET)
    scaled = (packed.patches.astype(np.float64) * (1 / 255)).astype(np.float32)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (form.mean, form.std))
    assert (normalise(packed.patches, form) == (scaled - mean) / std).all()
    assert byte_table(form).dtype == np.float32


@pytest.mark.parametrize("form", [CLIP, HALF])
def test_equal_to_hugging_face(form: PatchFormat) -> None:
    name = "transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl"
    module = pytest.importorskip(name, reason="no transformers here")
    from PIL import Image

    processor = module.PaddleOCRVLImageProcessorPil(
        min_pixels=BUDGET[0], max_pixels=BUDGET[1], image_mean=list(form.mean), image_std=list(form.std)
    )
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (28 * 14, 256, 3))[:, :252]  # most bytes as they are
    for seed, pixels in enumerate([np.ascontiguousarray(ramp), *(noise(*size, seed) for seed, size in enumerate(SIZES))]):
        if max(pixels.shape[:2]) / max(28, min(pixels.shape[:2])) > 200:
            continue
        want = processor(Image.fromarray(pixels), return_tensors="np")
        packed = pack(pixels, *BUDGET)
        assert [list(packed.grid)] == want["image_grid_thw"].tolist(), seed
        assert normalise(packed.patches, form).tobytes() == want["pixel_values"].tobytes(), seed
    every = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    rescaled = processor.rescale(every.transpose(2, 0, 1), 1 / 255)
    assert processor.normalize(rescaled, list(form.mean), list(form.std))[:, 0].tobytes() == byte_table(form).tobytes()
