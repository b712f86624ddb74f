"""A page as the report's template needs it: boxes with their numbers, rendered blocks, provenance in words.

Invariant: pure; nothing here is marked safe but what `rendered.py` made, all other text is escaped by the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.observe.pages import Picture, ShownPage
from pipelines.observe.quality import mean
from pipelines.observe.rendered import rendered_block
from pipelines.schema import FURNITURE

_MOST_BLOCKS = 1000  # shown of one page; a newspaper page has 200
_MOST_MARKDOWN = 60_000  # characters
FAMILIES = {
    "title": "title", "text": "text", "list": "list", "table": "table", "figure": "figure", "figure_caption": "figure",
    "table_caption": "figure", "formula": "formula", "code": "formula", "footnote": "note", "reference": "note",
    **dict.fromkeys(FURNITURE, "furniture"),
}  # fmt: skip
_SOURCES = {"text_layer": "text layer", "pixels": "pixels", "none": "not read"}
REASONS = {
    "random": "chosen at random", "degraded": "read with a fallback", "failed": "not read", "blank": "blank",
    "doubtful": "read least surely", "asked": "asked for",
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class BlockView:
    number: int  # reading order, from 1
    label: str
    family: str  # colour group
    source: str
    confidence: float | None
    agreement: float | None
    box: tuple[float, float, float, float] | None  # x, y, width, height in pixels
    body: Markup
    figure: bool  # shown as a piece of the page's picture
    facts: list[tuple[str, str]]  # provenance, in words
    raw: str | None
    furniture: bool

    @property
    def certainty(self) -> float | None:
        return min((v for v in (self.confidence, self.agreement) if v is not None), default=None)


@dataclass(slots=True, frozen=True)
class PageView:
    number: int  # within the report, from 1
    doc_id: str
    page: int  # from 1
    folder: str
    name: str  # of the document, without the part that all share
    state: str
    reason: str
    facts: list[tuple[str, str]]
    flags: list[str]
    error: str
    note: str
    width: int
    height: int
    picture: Picture | None
    blocks: list[BlockView]
    blocks_left_out: int
    markdown: str

    @property
    def badge(self) -> float:
        """Height of a box's number, in pixels of the page."""
        return max(12.0, self.width / 46)

    @property
    def path(self) -> str:
        """The reading order as points of a line from number to number, furniture left out."""
        starts = [block.box[:2] for block in self.blocks if block.box and not block.furniture]
        return " ".join(f"{x - self.badge / 2:.1f},{y + self.badge / 2:.1f}" for x, y in starts)


def page_view(number: int, shown: ShownPage, source: str) -> PageView:
    """
    Args:
        number: of the page within the report, from 1.
        source: of the run; a document's name is shown without it.
    """
    pick, row = shown.pick, shown.row or {}
    rows = row.get("blocks") or []
    blocks = [_block_view(block) for block in rows[:_MOST_BLOCKS]]
    folder, _, name = short_name(pick.uri, source).rpartition("/")
    markdown = row.get("markdown") or ""
    return PageView(
        number, pick.doc_id, pick.page_index + 1, folder, name or pick.doc_id[:12], row.get("state", pick.state),
        REASONS[pick.reason], _page_facts(row), list(row.get("flags") or []), _error(row), shown.note,
        int(row.get("width_px") or 0), int(row.get("height_px") or 0), shown.picture, blocks,
        max(0, len(rows) - _MOST_BLOCKS), _cut(markdown, _MOST_MARKDOWN),
    )  # fmt: skip


def short_name(uri: str, source: str) -> str:
    """A document's name without what all documents of the source share."""
    for folder in (source.rstrip("/") + "/", source.rsplit("/", 1)[0] + "/"):
        where = uri.find(folder)
        if len(folder) > 1 and where >= 0:
            return uri[where + len(folder) :]
    return uri


def _block_view(row: dict[str, Any]) -> BlockView:
    x0, y0, x1, y1 = row["bbox_px"] if row["bbox_px"] and len(row["bbox_px"]) == 4 else (0, 0, 0, 0)
    box = (round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1)) if x1 > x0 and y1 > y0 else None
    return BlockView(
        row["block_index"] + 1, row["label"], FAMILIES.get(row["label"], "text"), row["source"] or "none",
        row["confidence"], row["agreement"], box, rendered_block(row), bool(row["image"]) and box is not None,
        _facts(row), row["raw"], row["label"] in FURNITURE,
    )  # fmt: skip


def _facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    label = row["label"] + (f" {row['level']}" if row["level"] else "")
    native = row["native_label"]
    box = row["bbox_pt"] or []
    facts = [
        ("label", f"{label} ({native})" if native and native != row["label"] else label),
        ("source", _SOURCES.get(row["source"], row["source"] or "")),
        ("confidence", _share(row["confidence"])),
        ("agreement", _share(row["agreement"])),
        ("engine", row["engine"] or ""),
        ("weights", row["weights"] or ""),
        ("finish", "" if row["finish_reason"] in (None, "stop") else row["finish_reason"]),
        ("fallback", row["rung"] or ""),
        ("error", row["error_code"] or ""),
        ("tokens", _tokens(row)),
        ("box", "{:.0f}, {:.0f} to {:.0f}, {:.0f} pt".format(*box) if len(box) == 4 else ""),
        ("took", f"{1000 * row['seconds']:.0f} ms" if row["seconds"] else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _page_facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    if not row:
        return []
    seconds = dict(row["seconds"] or [])
    size = f"{row['width_pt']:.0f} × {row['height_pt']:.0f} pt at {row['dpi']:.0f} dpi" if row["dpi"] else ""
    facts = [
        ("size", size),
        ("took", f"{sum(seconds.values()):.2f} s" if seconds else ""),
        ("confidence", _share(_mean(row["blocks"] or [], "confidence"))),
        ("agreement", _share(_mean(row["blocks"] or [], "agreement"))),
        ("set upright", f"{row['turned']}°" if row.get("turned") else ""),
        ("tries", str(row["tries"]) if (row["tries"] or 1) > 1 else ""),
        ("revision", str(row["revision"]) if (row["revision"] or 1) > 1 else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _error(row: dict[str, Any]) -> str:
    code = row.get("error_code")
    return f"{code} in {row['error_stage']}: {row['error_message'] or ''}"[:2000] if code else ""


def _tokens(row: dict[str, Any]) -> str:
    if row["tokens"] is None:
        return ""
    saved = f", {row['tokens_saved']} saved" if row["tokens_saved"] else ""
    return f"{row['tokens']}{saved}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".") if value < 0.9995 else "1.0"


def _mean(rows: list[dict[str, Any]], name: str) -> float | None:
    return mean((row[name], row["content"] or "") for row in rows)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n... and {len(text) - most} more characters"
