"""The pictures of a page that are sent to a vision-language model, each with its task, prompt, budget and sampling.

Invariant: pure; no crop is empty or refused by the model for its shape. What is asked is `plan.py`'s; here are only pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from pipelines.config import PaddleOcrVlConfig
from pipelines.recognize import figures
from pipelines.recognize.base import Crop, Sampling, Task
from pipelines.recognize.merging import IntBox
from pipelines.recognize.pack import MAX_ASPECT
from pipelines.recognize.plan import PROMPTS, Ask, make_plan
from pipelines.schema import Pixels, RasterPage, Region

_INK = 200  # grey value, after stretching to 0..255, up to which a pixel of a formula is ink
_SMALL = 1500  # pixels: a page to be spotted that is smaller is doubled
_JPEG_QUALITY = 75  # of the official client


def plan_crops(page: RasterPage, regions: Sequence[Region], options: PaddleOcrVlConfig) -> list[Crop]:
    """One crop for every question that the page raises, in the order of its blocks.

    `Crop.regions` names the regions that the answer is for; regions of a page that raise no question (a figure that is not
    to be read, an empty box, a duplicate, a crop of one colour) are in none.
    """
    height, width = page.pixels.shape[:2]
    crops: list[Crop] = []
    for ask in make_plan(regions, width, height, options).asks:
        pixels = picture(page.pixels, ask, regions, options)
        if not options.strict_parity and blank(pixels):
            continue
        pixels = padded(pixels)
        if options.strict_parity:
            pixels = jpeg_coded(pixels)
        pixels = np.ascontiguousarray(pixels)
        crops.append(
            Crop(ask.regions, pixels, ask.task, PROMPTS[ask.task], ask.min_pixels, ask.max_pixels, sampling(ask.task, options))
        )
    return crops


def sampling(task: Task, options: PaddleOcrVlConfig) -> Sampling:
    return Sampling(
        options.temperature,
        options.top_p,
        options.repetition_penalty,
        options.max_new_tokens,
        skip_special_tokens=task != "spotting",
    )


def picture(page: Pixels, ask: Ask, regions: Sequence[Region], options: PaddleOcrVlConfig) -> Pixels:
    """(height, width, 3) uint8 RGB: what one question shows, before it is padded."""
    outlines = options.layout_shape_mode != "rect"
    parts = [cut(page, box, regions[i].polygon if outlines else ()) for i, box in zip(ask.regions, ask.boxes, strict=True)]
    crop = stacked(parts, ask.aligns)
    if ask.task == "table":
        crop = figures.paint(crop, ask.boxes[0], ask.tokens) if ask.tokens else crop
    elif ask.task == "formula":
        crop = trimmed(crop)
    elif ask.task == "spotting":
        crop = doubled(crop)
    return crop


def cut(page: Pixels, box: IntBox, polygon: Sequence[tuple[float, float]] = ()) -> Pixels:
    """The pixels of a box; white outside the polygon, where there is one."""
    x0, y0, x1, y1 = box
    crop = page[y0:y1, x0:x1]
    if len(polygon) < 3:
        return crop
    import cv2

    inside = np.zeros(crop.shape[:2], np.uint8)
    points = np.array(polygon, np.float64).astype(np.int32).reshape(-1, 1, 2) - np.array([x0, y0], np.int32)
    cv2.fillPoly(inside, [points], 1)
    return np.where(inside[:, :, None].astype(bool), crop, np.uint8(255))


def stacked(parts: Sequence[Pixels], aligns: Sequence[str]) -> Pixels:
    """Crops under each other on white; each after the first is put against all above it: left, right or center."""
    if len(parts) == 1:
        return parts[0]
    offsets, width = [0], parts[0].shape[1]
    for part, align in zip(parts[1:], aligns, strict=True):
        wider = max(width, part.shape[1])
        above, own = wider - width, wider - part.shape[1]
        share = {"left": 0, "right": 2}.get(align, 1)
        offsets = [offset + above * share // 2 for offset in offsets] + [own * share // 2]
        width = wider
    out = np.full((sum(part.shape[0] for part in parts), width, 3), 255, np.uint8)
    top = 0
    for part, left in zip(parts, offsets, strict=True):
        out[top : top + part.shape[0], left : left + part.shape[1]] = part
        top += part.shape[0]
    return out


def trimmed(crop: Pixels) -> Pixels:
    """A formula without its white margin; unchanged where it is of one colour or nothing would be left."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY).astype(np.int64)
    low, high = int(grey.min()), int(grey.max())
    if low == high:
        return crop
    ink = (grey - low) / (high - low) * 255 < _INK + 1
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    found = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return found if min(found.shape[:2]) > 2 else crop


def doubled(crop: Pixels) -> Pixels:
    """A page to be spotted, twice as large where it is small."""
    from PIL import Image

    high, wide = crop.shape[:2]
    if high >= _SMALL or wide >= _SMALL:
        return crop
    return np.asarray(Image.fromarray(crop).resize((wide * 2, high * 2), Image.Resampling.LANCZOS))


def padded(crop: Pixels) -> Pixels:
    """A crop with white added to its shorter side until the model accepts it."""
    high, wide = crop.shape[:2]
    least = -(-max(high, wide) // (MAX_ASPECT - 1))  # one below the limit: rounding to 28 pixels must not cross it
    if min(high, wide) >= least:
        return crop
    out = np.full((max(high, least), max(wide, least), 3), 255, np.uint8)
    top, left = (out.shape[0] - high) // 2, (out.shape[1] - wide) // 2
    out[top : top + high, left : left + wide] = crop
    return out


def blank(crop: Pixels) -> bool:
    """Whether a crop is of one colour, so that there is nothing to ask."""
    return bool((crop[::16, ::16] == crop[0, 0]).all() and (crop == crop[0, 0]).all())  # few get past the first look


def jpeg_coded(crop: Pixels) -> Pixels:
    """What is left of a crop after the official client's JPEG."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(crop)).save(sink, "JPEG", quality=_JPEG_QUALITY)
    return np.asarray(Image.open(sink, formats=("JPEG",)).convert("RGB"))
