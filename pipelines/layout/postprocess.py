"""From what PP-DocLayoutV2/V3 says of a page to its regions, step by step as the official pipeline does it.

Invariant: pure; raises for no rows, however odd; the regions come out in the model's reading order, with whole pixels
inside the page. What is asked of the rows is in `docs/parity.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config import PaddleOcrVlConfig
from pipelines.layout import polygons as shapes
from pipelines.layout.labels import (
    CLASS_ID,
    MERGE_MODES,
    OFFICIAL_LABELS,
    UNORDERED,
    default_thresholds,
    own_label,
)
from pipelines.schema import Box, Region

# (rows, 7 or 8): class, score, x0, y0, x1, y1, rank (, votes); the model's own precision, in which a score of 0.3 is not
# above a threshold of 0.3
Rows = npt.NDArray[np.float32]
MASK_CUT = 0.5  # of a mask's probability, where thresholds are by class; else the one threshold, as the official engine has it
_SAME_CLASS, _ANY_CLASS = 0.6, 0.98  # IoU from which a box is suppressed by a better one
_LANDSCAPE, _PORTRAIT = 0.82, 0.93  # share of the page from which an `image` is taken for the page itself
_CONTAINED = 0.9
_FARTHEST = 1e6  # pixels: no page has an edge there, and products of two are still exact enough
_BEYOND = 0.5, 1000  # of the page, or pixels: what an outline is drawn in reaches so far over its edges, which bounds its memory


@dataclass(slots=True, frozen=True)
class PostOptions:
    """What the steps need of the configuration, defaults of the pipeline version filled in."""

    threshold: float | Mapping[int, float]
    nms: bool
    merge: str | Mapping[int, str]
    unclip: tuple[float, float] | Mapping[int, tuple[float, float]] | None
    shape: str
    strict: bool

    @property
    def mask_cut(self) -> float:
        """Probability above which a point belongs to a region's mask."""
        return self.threshold if isinstance(self.threshold, float) else MASK_CUT

    @classmethod
    def of(cls, config: PaddleOcrVlConfig) -> PostOptions:
        threshold = config.layout_threshold
        return cls(
            default_thresholds(config.pipeline_version) if threshold is None else threshold,
            config.layout_nms,
            MERGE_MODES if config.layout_merge_bboxes_mode is None else config.layout_merge_bboxes_mode,
            _unclip(config.layout_unclip_ratio),
            config.layout_shape_mode,
            config.strict_parity,
        )


def _unclip(ratio: Any) -> tuple[float, float] | dict[int, tuple[float, float]] | None:
    if isinstance(ratio, dict):
        return {number: _pair(value) for number, value in ratio.items()}
    return None if ratio is None else _pair(ratio)


def _pair(ratio: Any) -> tuple[float, float]:
    return (float(ratio), float(ratio)) if isinstance(ratio, int | float) else (float(ratio[0]), float(ratio[1]))


def postprocess(
    rows: npt.ArrayLike,
    width: int,
    height: int,
    options: PostOptions,
    masks: Sequence[Any] | None = None,
    polygons: Sequence[Any] | None = None,
    labels: Sequence[str] = OFFICIAL_LABELS,
) -> list[Region]:
    """
    Args:
        rows: (rows, 7 or 8) float: class, score, x0, y0, x1, y1 in pixels of the page, rank in reading order (, votes).
        masks: one (200, 200) array of 0 and 1 a row, over the whole page (V3).
        polygons: or one (points, 2) array a row, in pixels of the page.
        labels: name of each class number.

    Returns:
        Regions in reading order; `native_label` is the official word, `order` counts from 1 where reading order counts.
    """
    found = np.array(rows, np.float32)
    if found.ndim != 2 or found.shape[1] < 7:
        return []
    found[:, 2:6] = np.clip(np.round(found[:, 2:6]), -_FARTHEST, _FARTHEST)
    chosen = np.flatnonzero(np.isfinite(found[:, :7]).all(axis=1) & (found[:, 0] > -1) & (found[:, 0] < len(labels)))
    chosen = chosen[_over_threshold(found[chosen], options.threshold)]
    if options.nms:
        chosen = chosen[_suppressed(found[chosen], options.strict)]
    chosen = chosen[_not_the_page(found[chosen], width, height, labels)]
    chosen = chosen[_merged(found[chosen], options.merge)]
    keys = (-found[chosen, 7], found[chosen, 6]) if found.shape[1] >= 8 else (found[chosen, 6],)
    order = np.lexsort(keys) if found.shape[1] >= 8 else _ascending(keys[0], options.strict)
    chosen = chosen[order]
    found_shapes: list[shapes.Polygon] | None = None
    if options.shape != "rect" and masks is not None:
        found_shapes = shapes.outlines(
            _near(found[chosen, 2:6], width, height),
            [np.asarray(masks[int(i)]) for i in chosen],
            (width, height),
            options.shape,
            options.strict,
        )
    elif options.shape != "rect" and polygons is not None:
        found_shapes = shapes.shaped(found[chosen, 2:6], [polygons[int(i)] for i in chosen], options.shape)
    return _regions(_grown(found[chosen], options.unclip), found_shapes, width, height, labels)


def _near(boxes: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    page = np.array([width, height, width, height], np.float32)
    beyond = np.maximum(_BEYOND[0] * page, _BEYOND[1])
    near: npt.NDArray[np.float32] = np.clip(boxes, -beyond, page + beyond)
    return near


def _over_threshold(rows: Rows, threshold: float | Mapping[int, float]) -> npt.NDArray[np.intp]:
    """Indices of rows above their class's score; by class where the thresholds are, which is the order that ties keep."""
    if not isinstance(threshold, Mapping):
        return np.flatnonzero(rows[:, 1] > threshold)
    least = np.array([threshold.get(int(number), 0.5) for number in rows[:, 0]], np.float32)
    passing = np.flatnonzero(rows[:, 1] > least) if len(rows) else np.zeros(0, np.intp)
    return passing[np.argsort(rows[passing, 0], kind="stable")]


def _ascending(values: npt.NDArray[np.float32], strict: bool) -> npt.NDArray[np.intp]:
    """The order of values. The official code sorts with whatever NumPy has for the processor, which puts equal values in other
    orders with AVX2 than without: what is read of a page would depend on the machine."""
    return np.argsort(values) if strict else np.argsort(values, kind="stable")


def _suppressed(rows: Rows, strict: bool) -> npt.NDArray[np.intp]:
    """Indices left by greedy suppression, best score first. Two boxes with corners swapped may together have no area at all:
    the official code divides by it, and takes them for the same."""
    left = _ascending(rows[:, 1], strict)[::-1]
    kept: list[int] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        limit = np.where(rows[left, 0] == rows[best, 0], _SAME_CLASS, _ANY_CLASS).astype(np.float32)
        left = left[_iou(rows[best, 2:6], rows[left, 2:6], np.inf if strict else 0.0) < limit]
    return np.array(kept, np.intp)


def _iou(box: npt.NDArray[np.float32], others: npt.NDArray[np.float32], without_area: float) -> npt.NDArray[np.float32]:
    """A pixel has width: every side counts one more than the difference of its ends."""
    wide = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]) + 1
    high = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]) + 1
    both = np.maximum(0, wide) * np.maximum(0, high)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    areas = (others[:, 2] - others[:, 0] + 1) * (others[:, 3] - others[:, 1] + 1)
    whole = area + areas - both
    shares: npt.NDArray[np.float32] = np.divide(both, whole, out=np.full_like(both, without_area), where=whole != 0)
    return shares


def _not_the_page(rows: Rows, width: int, height: int, labels: Sequence[str]) -> npt.NDArray[np.intp]:
    """All but `image` boxes that are the page itself; all, where nothing else would be left."""
    everything = np.arange(len(rows))
    if len(rows) <= 1 or "image" not in labels:
        return everything
    inner, outer = np.maximum(rows[:, 2:4], 0), np.minimum(rows[:, 4:6], np.array([width, height], np.float32))
    area = (outer - inner).prod(axis=1)
    limit = (_LANDSCAPE if width > height else _PORTRAIT) * width * height
    left = np.flatnonzero((rows[:, 0] != labels.index("image")) | (area <= limit))
    return left if len(left) else everything


def _merged(rows: Rows, modes: str | Mapping[int, str]) -> npt.NDArray[np.intp]:
    """Of boxes one inside the other: `large` keeps the outer, `small` the inner, `union` both."""
    count = len(rows)
    keep = np.ones(count, bool)
    inside = _inside(rows[:, 2:6])
    classes: list[tuple[int | None, str]] = [(None, modes)] if isinstance(modes, str) else [(n, m) for n, m in modes.items()]
    for number, mode in classes:
        if mode == "union":
            continue
        of_class = np.ones(count, bool) if number is None else rows[:, 0] == number
        if mode == "large":
            keep &= ~(inside & of_class[None, :]).any(axis=1)
        else:
            pairs = inside & of_class[:, None]
            keep &= ~pairs.any(axis=0) | pairs.any(axis=1)
    return np.flatnonzero(keep)


def _inside(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """[i, j]: whether nine tenths of box i lie in box j."""
    wide = np.minimum(boxes[:, None, 2], boxes[None, :, 2]) - np.maximum(boxes[:, None, 0], boxes[None, :, 0])
    high = np.minimum(boxes[:, None, 3], boxes[None, :, 3]) - np.maximum(boxes[:, None, 1], boxes[None, :, 1])
    both = np.maximum(0, wide) * np.maximum(0, high)
    area = np.broadcast_to(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[:, None], both.shape)
    share = np.divide(both, area, out=np.zeros_like(both), where=area > 0)
    found: npt.NDArray[np.bool_] = share >= np.float32(_CONTAINED)
    np.fill_diagonal(found, False)
    return found


def _grown(rows: Rows, unclip: tuple[float, float] | Mapping[int, tuple[float, float]] | None) -> Rows:
    """Boxes grown about their middle."""
    if unclip is None:
        return rows
    ratio = np.array([unclip.get(int(n), (1.0, 1.0)) if isinstance(unclip, Mapping) else unclip for n in rows[:, 0]], np.float32)
    if not len(rows) or (ratio == 1.0).all():
        return rows
    rows = rows.copy()
    size = rows[:, 4:6] - rows[:, 2:4]
    middle = rows[:, 2:4] + size / 2
    rows[:, 2:4], rows[:, 4:6] = middle - size * ratio / 2, middle + size * ratio / 2
    return rows


def _regions(
    rows: Rows, polygons: Sequence[shapes.Polygon] | None, width: int, height: int, labels: Sequence[str]
) -> list[Region]:
    found: list[Region] = []
    counted = 0
    for i, row in enumerate(rows):
        x0, y0, x1, y1 = int(max(0, row[2])), int(max(0, row[3])), int(min(width, row[4])), int(min(height, row[5]))
        if x1 <= x0 or y1 <= y0:
            continue
        label = labels[int(row[0])]
        ordered = label not in UNORDERED
        counted += ordered
        polygon = tuple((float(x), float(y)) for x, y in polygons[i]) if polygons is not None else ()
        found.append(Region(own_label(label), Box(x0, y0, x1, y1), float(row[1]), label, polygon, counted if ordered else None))
    return found


def detection_record(regions: Sequence[Region]) -> list[dict[str, Any]]:
    """Regions as `layout_det_res.boxes` of the official JSON has them."""
    return [
        {
            "cls_id": CLASS_ID.get(region.native_label, 0),
            "label": region.native_label or region.label,
            "score": region.score,
            "coordinate": [int(edge) for edge in region.box],
            "order": region.order,
        }
        | ({"polygon_points": [list(point) for point in region.polygon]} if region.polygon else {})
        for region in regions
    ]
