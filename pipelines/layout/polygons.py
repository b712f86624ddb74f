"""Outlines of regions from the masks of PP-DocLayoutV3. The only user of `shapely`.

Invariant: pure; a mask that gives no outline of at least four points gives the box. Points are `(x, y)` in pixels of the
page, clockwise from the top left where the shape is a rectangle or a quadrangle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Polygon = npt.NDArray[np.float32]  # (points, 2)
Points = Sequence[Sequence[float]]

_SIMPLIFY = 0.004  # of the perimeter
_LONG = 0.3  # of the reference width: longer edges get their points back
_WIDE = 0.6  # of the widest box: a box beyond it is its own reference
_BLUNT = 120.0  # degrees: sharper dents are noise
_CORNER = 45.0


def outlines(
    boxes: npt.NDArray[np.float32], masks: Sequence[Any], page: tuple[int, int], mode: str, strict: bool
) -> list[Polygon]:
    """One polygon a box.

    Args:
        boxes: (boxes, 4), x0, y0, x1, y1, whole pixels.
        masks: one (200, 200) array of 0 and 1 a box, over the whole page.
        page: width and height in pixels.
        mode: quad, poly or auto.
        strict: measure the widest box as the official code does, from the wrong side.
    """
    if not len(boxes):
        return []
    widest = float(np.max(boxes[:, 2] - boxes[:, 1 if strict else 0]))
    shapes = [_from_mask(box, mask, page, widest) for box, mask in zip(boxes.astype(np.int32), masks, strict=True)]
    return shaped(boxes, shapes, mode)


def shaped(boxes: npt.NDArray[np.float32], polygons: Sequence[Any], mode: str) -> list[Polygon]:
    """Polygons brought to the form that `mode` asks for; None or too few points give the box."""
    found: list[Polygon] = []
    for box, polygon in zip(boxes, polygons, strict=True):
        found.append(_shape(rectangle(box), polygon, mode, found[-1] if found else None))
    return found


def rectangle(box: Sequence[float] | npt.NDArray[Any]) -> Polygon:
    x0, y0, x1, y1 = np.asarray(box).astype(np.int32)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def polygon_overlap(a: Points | Polygon, b: Points | Polygon, over: Literal["union", "small"] = "small") -> float:
    """Intersection over the union or the smaller area; 0 where one of them is nothing."""
    from shapely.geometry import Polygon as Shape

    one, other = Shape(np.asarray(a)), Shape(np.asarray(b))
    one, other = (shape if shape.is_valid else shape.buffer(0) for shape in (one, other))
    whole = one.union(other).area if over == "union" else min(one.area, other.area)
    return float(one.intersection(other).area / whole) if whole > 0 else 0.0


def _shape(rect: Polygon, polygon: Any, mode: str, before: Polygon | None) -> Polygon:
    if polygon is None:
        return rect
    points = np.asarray(polygon, np.float32).reshape(-1, 2)
    if len(points) < 4 or mode == "rect":
        return rect
    if mode == "poly":
        return points
    quad = _quad(points)
    if mode == "quad":
        return quad
    if polygon_overlap(rect, quad, "union") >= 0.95:
        return rect
    apart = before is None or polygon_overlap(before, rect) < 0.01
    return quad if apart and polygon_overlap(points, quad, "union") >= 0.8 else points


def _quad(points: Polygon) -> Polygon:
    """The least rectangle around the points, however turned."""
    import cv2

    corners = cv2.boxPoints(cv2.minAreaRect(points))
    middle = corners.mean(axis=0)
    corners = corners[np.argsort(np.arctan2(corners[:, 1] - middle[1], corners[:, 0] - middle[0]))]
    return np.roll(corners, -int(np.argmin(corners.sum(axis=1))), axis=0)


def _from_mask(box: npt.NDArray[np.int32], mask: Any, page: tuple[int, int], widest: float) -> Any:
    """The outline of the largest spot of a mask within a box, or None."""
    import cv2

    x0, y0, x1, y1 = (int(edge) for edge in box)
    if x1 <= x0 or y1 <= y0 or page[0] <= 0 or page[1] <= 0:
        return None
    high, wide = mask.shape
    # masks are a quarter of the model's 800 pixel input; where they have another size, they still span the page
    across, down = wide / page[0], high / page[1]
    left, right = np.clip([round(x0 * across), round(x1 * across)], 0, wide)
    top, bottom = np.clip([round(y0 * down), round(y1 * down)], 0, high)
    spot = np.asarray(mask[top:bottom, left:right], np.uint8)
    if not spot.size or not spot.any():
        return None
    spot = cv2.resize(spot, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(spot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea)
    simple = cv2.approxPolyDP(contour, _SIMPLIFY * cv2.arcLength(contour, True), True).reshape(-1, 2)
    reach = x1 - x0 if x1 - x0 > _WIDE * widest else widest
    return np.asarray(_smoothed(simple, _LONG * reach), np.float64).reshape(-1, 2) + np.array([x0, y0])


def _smoothed(points: npt.NDArray[np.int32], longest: float) -> list[tuple[float, float]]:
    """Without single dents; with points given back where an edge became long; with corners of 45 degrees drawn out."""
    count = len(points)
    back = np.array([points[i - 1] - points[i] for i in range(count)], np.float64)
    ahead = np.array([points[(i + 1) % count] - points[i] for i in range(count)], np.float64)
    bulge = [(-back[i][0] * ahead[i][1] + back[i][1] * ahead[i][0]) < 0 for i in range(count)]
    angles = [_angle(back[i], ahead[i]) for i in range(count)]
    dents = _runs([i for i in range(count) if not bulge[i]], count)
    kept = [i for i in range(count) if bulge[i] or (i in dents and angles[i] >= _BLUNT)]
    chosen = _refilled(kept, points, longest)
    out: list[tuple[float, float]] = []
    for i in chosen:
        point = points[i].astype(np.float64)
        if bulge[i] and abs(angles[i] - _CORNER) < 1:
            lengths = math.hypot(*back[i]), math.hypot(*ahead[i])
            along = back[i] / lengths[0] + ahead[i] / lengths[1]
            point = point + along / math.hypot(*along) * (lengths[0] + lengths[1]) / 2
        out.append((float(point[0]), float(point[1])))
    return out


def _angle(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    lengths = math.hypot(*a), math.hypot(*b)
    if not all(lengths):
        return math.nan
    return float(np.degrees(np.arccos(np.clip(np.dot(a / lengths[0], b / lengths[1]), -1.0, 1.0))))


def _runs(dents: list[int], count: int) -> set[int]:
    """Dents that stand beside another one. Where both ends of the outline are dents, all of them or none."""
    groups: list[list[int]] = []
    for i in dents:
        if groups and i - groups[-1][-1] == 1:
            groups[-1].append(i)
        else:
            groups.append([i])
    found = {i for group in groups if len(group) >= 2 for i in group}
    if len(dents) >= 2 and dents[0] == 0 and dents[-1] == count - 1 and not {0, count - 1} <= found:
        return set()
    return found


def _refilled(kept: list[int], points: npt.NDArray[np.int32], longest: float) -> list[int]:
    count = len(points)
    chosen = set(kept)
    for here, there in zip(kept, kept[1:] + kept[:1], strict=True):
        distance = math.hypot(*(points[here] - points[there]).astype(np.float64))
        if distance <= longest:
            continue
        between = [*range(here + 1, there)] if there > here else [*range(here + 1, count), *range(there)]
        needed = math.ceil(distance / longest) - 1 if longest > 0 else len(between)
        if len(between) <= needed:
            chosen.update(between)
        elif needed:
            step = len(between) / needed
            chosen.update(between[int(i * step)] for i in range(needed))
    return sorted(chosen)
