"""Levels of titles over a whole document: by numbering, by order of first use, by height. The only user of `sklearn`.

Invariant: raises for no title; a title without height counts as of height 0. Clustering has a fixed seed, so that the same
document gets the same levels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.schema import Box

_CLUSTERS = 4
_SEED = 42
_DIGITS = r"\d+(?:\.\d+)*"
_STYLES = (  # asked in this order: "I am" counts as roman, "2023年" as a number
    ("NUM_LIST_BRACKET", re.compile(rf"\s*[(（]?{_DIGITS}[)）]")),
    ("ROMAN", re.compile(r"\s*[IVX]+(?:[.．)\s]|$)", re.I)),
    (
        "CHINESE_NUM",
        re.compile(r"\s*[第（(]?[一二三四五六七八九十]{1,2}(?:[章节篇卷部条题讲课回）)]|(?![a-zA-Z\u4e00-\u9fa5]))", re.I),
    ),
    ("LETTER", re.compile(r"\s*[A-Z][.．)\s]", re.I)),
    ("NUM_LIST", re.compile(rf"\s*({_DIGITS})(?![）)])")),
)
_LEVELS = {"NUM_LIST_BRACKET": 4, "ROMAN": 1, "CHINESE_NUM": 1, "LETTER": 2}
_SECTIONS = frozenset(
    {
        "ABSTRACT", "SUMMARY", "RESUME", "绪论", "引言", "CONTENTS", "REFERENCES", "REFERENCE", "参考文献", "APPENDIX",
        "APPENDICES", "附录", "ACKNOWLEDGMENTS", "INTRODUCTION", "BACKGROUNDANDRELATEDWORK", "BACKGROUND", "RELATEDWORK",
        "THEORETICALMODELS", "DATA", "METHOD", "METHODS", "METHODOLOGY", "TOPICANALYSIS", "RESULT", "RESULTS", "DISCUSSION",
        "CONCLUSIONS", "CONCLUSION", "LIMITATIONS", "研究背景", "相关工作", "研究方法", "实验结果", "讨论", "结论",
        "致谢", "目录",
    }
)  # fmt: skip


@dataclass(slots=True, frozen=True)
class Title:
    content: str
    box: Box | tuple[int, int, int, int]


def numbering(text: str) -> tuple[str | None, int]:
    """Style of a title's numbering and the level that it stands for; (None, -1) without one."""
    for style, pattern in _STYLES:
        found = pattern.match(text.strip())
        if found:
            return style, _LEVELS[style] if style in _LEVELS else found.group(1).count(".") + 1
    return None, -1


def title_levels(titles: Sequence[Title]) -> list[int]:
    """One level a title, 1 the highest; 0 and less where numbering goes up from the first one seen."""
    marks = [numbering(title.content) for title in titles]
    order: dict[str, int] = {}
    for style, _ in marks:
        if style is not None:
            order.setdefault(style, len(order) + 1)
    by_height = _clusters([line_height(title) for title in titles])
    first_number = 0
    levels: list[int] = []
    for title, (style, level), cluster in zip(titles, marks, by_height, strict=True):
        if style is None:
            levels.append(1 if _section(title.content) in _SECTIONS else cluster)
            continue
        relative = order[style]
        if style == "NUM_LIST":
            first_number = first_number or level
            relative += level - first_number
        voted, votes = Counter([level, relative, cluster]).most_common(1)[0]
        levels.append(voted if votes > 1 else relative)
    return levels


def line_height(title: Title) -> int:
    """Pixels of one line; of a title that is higher than wide, of one column."""
    x0, y0, x1, y1 = int(title.box[0]), int(title.box[1]), math.ceil(title.box[2]), math.ceil(title.box[3])
    wide, high = x1 - x0, y1 - y0
    if high == 0:
        return 0
    lines = title.content.strip().count("\n") + 1
    return int((high if wide / high >= 1.0 else wide) / lines)


def _section(text: str) -> str:
    return text.upper().strip().rstrip("：: ").replace(" ", "")


def _clusters(heights: Sequence[int]) -> list[int]:
    """The rank of each height's cluster, 1 the highest."""
    distinct = sorted(set(heights), reverse=True)
    if len(distinct) <= _CLUSTERS:  # each is a cluster of its own
        return [distinct.index(height) + 1 for height in heights]
    import numpy as np
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters=_CLUSTERS, random_state=_SEED, n_init="auto").fit(np.array(heights).reshape(-1, 1))
    centres = model.cluster_centers_.reshape(-1)
    rank = {int(old): new + 1 for new, old in enumerate(np.argsort(-centres))}
    return [rank[int(np.argmin(np.abs(centres - height)))] for height in heights]
