"""Single blocks of a stored page read again: its regions are taken as they were found, the other blocks stay as they are.

Invariant: a page whose stored reading does not fit what is asked now (another layout, a reader of whole pages, a block without
its region) is read whole instead; what is spliced has for every block either its stored form, unchanged, or the new answer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import AnswerEmpty, AnswerGarbled, AnswerTruncated, DamagedOutput, TableMalformed
from pipelines.layout.orientation import turned
from pipelines.recognize.base import PREFERRED, Answer, Crop, Reading
from pipelines.schema import Block, Box, PageState, PageWork, Region, SpanWork
from pipelines.store.objects import ObjectStore

_COLUMNS = [
    "doc_id", "page_index", "attempt", "state", "width_px", "height_px", "turned", "unwarped", "blocks", "regions", "fingerprint",
    "layout_fingerprint",
]  # fmt: skip
_OF_ANSWER = {code.code for code in (AnswerEmpty, AnswerTruncated, AnswerGarbled, TableMalformed)}  # `finish` finds them again

Key = tuple[tuple[float, ...], str]  # of a region and of its block: box and native label


@dataclass(slots=True, frozen=True)
class Kept:
    """A page as it was read before, and which of its blocks are to be read again."""

    row: Mapping[str, Any]
    again: frozenset[int]  # block_index
    asked: list[bool] = field(default_factory=list)  # of each crop, whether it is asked again

    def regions(self) -> list[Region]:
        return [
            Region(
                row["label"], Box(*row["bbox_px"]), row["score"], row["native_label"] or "",
                tuple((float(x), float(y)) for x, y in row["polygon_px"] or ()), row["order"],
            )
            for row in self.row["regions"]
        ]  # fmt: skip

    def answers(self, regions: Sequence[Region], crops: Sequence[Crop]) -> list[Answer | None] | None:
        """For each crop what was answered before, None where it is to be asked again; None: the page must be read whole."""
        blocks = {_key(block["bbox_px"], block["native_label"]): block for block in self.row["blocks"] or ()}
        found: list[Answer | None] = []
        for crop in crops:
            members = [blocks.get(_key(regions[i].box, regions[i].native_label)) for i in crop.regions]
            if members[0] is None:
                return None
            asked = any(block is not None and block["block_index"] in self.again for block in members)
            found.append(None if asked else _answer(members[0]))
        return found

    def splice(self, page: PageWork, reading: Reading, fingerprint: str) -> None:
        """Puts the stored form of every block that was not asked about in the place of the one made of its old answer.

        The page keeps the fingerprint that it was read with, unless everything in it that can be read was read again.
        """
        regions = page.regions or []
        asked = {
            _key(regions[i].box, regions[i].native_label)
            for crop, again in zip(page.crops, self.asked, strict=True)
            for i in crop.regions
            if again
        }
        stored = {_key(block["bbox_px"], block["native_label"]): block for block in self.row["blocks"] or ()}
        whole = all(self.asked)
        page.fingerprint = "" if whole else self.row["fingerprint"]
        for index, block in enumerate(reading.blocks):
            key = _key(block.box_px, block.native_label)
            if key in asked:
                block.fingerprint = "" if whole else fingerprint
            elif key in stored:
                reading.blocks[index] = _block(stored[key])


class KeptPages:
    """Fetches the stored readings that a span's splices name.

    Args:
        layout_fingerprint: "": blocks cannot be read by themselves here, pages are read whole.
    """

    def __init__(self, store: ObjectStore, layout_fingerprint: str) -> None:
        self._store = store
        self._layout = layout_fingerprint

    def attach(self, work: SpanWork) -> None:
        """Sets `kept` of each page that can be spliced.

        Raises:
            DamagedOutput, StoreUnavailable
        """
        layout = work.span.layout_fingerprint or self._layout
        if not layout or not work.span.splices:
            return
        pages = {page.page_index: page for page in work.pages}
        parts = {splice.part for splice in work.span.splices}
        rows = {part: self._rows(part, work.span.doc_id) for part in sorted(parts)}
        for splice in work.span.splices:
            row = rows[splice.part].get((splice.page, splice.attempt))
            if row is None:
                words = f"{splice.part}: page {splice.page} of {work.span.doc_id} is missing, though the ledger names it"
                raise DamagedOutput(words)
            if _fits(row, layout):
                pages[splice.page].kept = Kept(row, frozenset(splice.blocks))

    def _rows(self, part: str, doc_id: str) -> dict[tuple[int, str], dict[str, Any]]:
        data = io.BytesIO(self._store.get(part))
        columns = [name for name in _COLUMNS if name in pq.read_schema(data).names]
        table = pq.read_table(data, columns=columns, filters=pc.field("doc_id") == doc_id)
        return {(row["page_index"], row["attempt"]): row for row in table.to_pylist()}


def _fits(row: Mapping[str, Any], layout: str) -> bool:
    same = row.get("layout_fingerprint") == layout
    return same and row["state"] != PageState.FAILED and row["regions"] is not None and not row.get("unwarped")


def laid_out(page: PageWork) -> None:
    """Gives a drawn page the regions that were found before, or lets go of what it was, when it looks otherwise now."""
    kept = page.kept
    if kept is None or page.raster is None or page.blank or page.error is not None:
        page.kept = None
        return
    raster = turned(page.raster, kept.row["turned"] or 0)
    height, width = raster.pixels.shape[:2]
    if (width, height) != (kept.row["width_px"], kept.row["height_px"]):
        page.kept = None
        return
    page.raster, page.turned, page.regions = raster, kept.row["turned"], kept.regions()
    page.width_px, page.height_px, page.width_pt, page.height_pt = width, height, raster.width_pt, raster.height_pt


def _key(box: Sequence[float], native_label: str | None) -> Key:
    return tuple(float(edge) for edge in box), native_label or ""


def _answer(block: Mapping[str, Any]) -> Answer:
    """What a model had said, so that the same block comes of it."""
    code = block["error_code"]
    rung = block["rung"] or (PREFERRED if block["source"] == "text_layer" else None)
    return Answer(
        block["content"] if block["raw"] is None else block["raw"], block["finish_reason"], tokens=block["tokens"] or 0,
        tokens_saved=block["tokens_saved"] or 0, rung=rung, confidence=block["confidence"],
        error_code=None if code in _OF_ANSWER else code,
    )  # fmt: skip


def _block(row: Mapping[str, Any]) -> Block:
    names = [field.name for field in fields(Block) if field.name != "box_px"]
    values: dict[str, Any] = {name: row.get(name) for name in names}
    values |= {name: values[name] or "" for name in ("native_label", "fingerprint")}
    return Block(box_px=Box(*row["bbox_px"]), **values)
