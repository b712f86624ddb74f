"""Parquet parts: one row per page, blocks nested.

Invariant: a part is built whole in memory, named by the SHA-256 of its bytes and sent by one put; a part that no ledger
record names is an orphan and harms nobody. Rows of one span are adjacent, so row groups stay narrow per document.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.schema import PAGES, Block, Box, PageWork, Region, SpanReceipt, SpanWork
from pipelines.store.objects import ObjectStore

_LONGEST_MESSAGE = 300  # characters of a failed page's message that travel with its receipt; the part has all of it
_IMAGE = re.compile(r"\b[0-9a-f]{64}\.(?:png|jpg)\b")  # as figures are named: by their bytes
ROW_GROUP_PAGES = 1024  # a reader that wants one document fetches a few MB, not the part


class PartWriter:
    """Stage `write`: pages of some spans become one part; their figures go beside the document's Markdown."""

    def __init__(self, store: ObjectStore, run_id: str, fingerprint: str, layout_fingerprint: str = "") -> None:
        self._store = store
        self._run_id = run_id
        self._fingerprint = fingerprint
        self._layout_fingerprint = layout_fingerprint

    def write(self, works: Sequence[SpanWork]) -> list[SpanReceipt]:
        """Writes figures, then the part, and returns the receipts of each span (one for all pages that were read with the same
        configuration); only then may the pages be committed.

        Raises:
            StoreUnavailable: nothing is committed; what was put is an orphan.
        """
        for work in works:
            for page in work.pages:
                for figure in page.figures:
                    self._store.put(f"{document_folder(work.span.doc_id)}/{figure.name}", figure.data)
        data = part_bytes([row for work in works for row in self._rows(work)])
        key = f"pages/part-{hashlib.sha256(data).hexdigest()}.parquet"
        self._store.put(key, data)
        return [receipt for work in works for receipt in _receipts(work, key, work.span.fingerprint or self._fingerprint)]

    def _rows(self, work: SpanWork) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        return [
            page_row(page)
            | {
                "revision": work.span.revision,
                "fingerprint": page.fingerprint or work.span.fingerprint or self._fingerprint,
                "layout_fingerprint": work.span.layout_fingerprint or self._layout_fingerprint or None,
                "run_id": self._run_id,
                "attempt": work.attempt,
                "span_first": work.span.pages[0],
                "span_pages": len(work.span.pages),
                "read_at": now,
            }
            for page in work.pages
        ]


def images_of(block: Mapping[str, Any]) -> set[str]:
    """Names of the image files that a stored block shows: a figure's own, and those inside a table's cells."""
    shown = set(_IMAGE.findall(block["html"] or ""))
    return shown | {block["image"]} if block["image"] else shown


def document_folder(doc_id: str) -> str:
    """Key of the folder that holds a document's Markdown and image files."""
    return f"markdown/{doc_id[:2]}/{doc_id}"


def page_row(page: PageWork) -> dict[str, Any]:
    """What a page says of itself, as a row of `PAGES` without the columns of its span and run."""
    return {
        "doc_id": page.doc_id,
        "page_index": page.page_index,
        "state": page.state.value,
        "flags": sorted(set(page.flags)),
        "error_code": page.error.code if page.error else None,
        "error_stage": page.error.stage if page.error else None,
        "error_message": page.error.message if page.error else None,
        "error_trace": page.error.trace or None if page.error else None,
        "timing": page.timing,
        "width_pt": page.width_pt,
        "height_pt": page.height_pt,
        "width_px": page.width_px,
        "height_px": page.height_px,
        "dpi": page.dpi,
        "turned": page.turned,
        "unwarped": page.unwarped,
        "markdown": page.markdown,
        "blocks": [_block_row(index, block, page) for index, block in enumerate(page.blocks)],
        "regions": [_region_row(region) for region in page.regions] if page.regions is not None else None,
        "tries": page.tries,
        "seconds": list(page.seconds.items()),
        "cpu_s": page.cpu_s,
    }


def _block_row(index: int, block: Block, page: PageWork) -> dict[str, Any]:
    per_pixel = 72.0 / page.dpi if page.dpi else 0.0
    return {
        "block_index": index,
        "label": block.label,
        "level": block.level,
        "content": block.content,
        "html": block.html,
        "image": block.image,
        "bbox_pt": list(Box(*block.box_px).scaled(per_pixel)),
        "bbox_px": list(block.box_px),
        "source": block.source,
        "engine": block.engine,
        "weights": block.weights,
        "dpi": page.dpi,
        "confidence": block.confidence,
        "finish_reason": block.finish_reason,
        "native_label": block.native_label or None,
        "raw": block.raw,
        "error_code": block.error_code,
        "rung": block.rung,
        "tokens": block.tokens,
        "tokens_saved": block.tokens_saved,
        "agreement": block.agreement,
        "fingerprint": block.fingerprint or None,
        "seconds": block.seconds,
    }


def _region_row(region: Region) -> dict[str, Any]:
    return {
        "label": region.label,
        "native_label": region.native_label or None,
        "score": region.score,
        "order": region.order,
        "bbox_px": list(region.box),
        "polygon_px": [list(point) for point in region.polygon] or None,
    }


def part_bytes(rows: list[dict[str, Any]]) -> bytes:
    """Rows of `PAGES` as Zstd Parquet."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=PAGES)
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_PAGES, write_page_checksum=True)
    return sink.getvalue()


def _receipts(work: SpanWork, key: str, fingerprint: str) -> list[SpanReceipt]:
    by_print: dict[str, list[PageWork]] = {}
    for page in work.pages:
        by_print.setdefault(page.fingerprint or fingerprint, []).append(page)
    return [_receipt(work, pages, key, with_which) for with_which, pages in by_print.items()]


def _receipt(work: SpanWork, pages: Sequence[PageWork], key: str, fingerprint: str) -> SpanReceipt:
    return SpanReceipt(
        doc_id=work.span.doc_id,
        revision=work.span.revision,
        pages=tuple(page.page_index for page in pages),
        states=tuple(page.state.value for page in pages),
        codes=tuple(page.error.code if page.error else "" for page in pages),
        tries=work.span.tries,
        attempt=work.attempt,
        part=key,
        messages=tuple(page.error.message[:_LONGEST_MESSAGE] if page.error else "" for page in pages),
        fingerprint=fingerprint,
        options=work.span.options,
        secret=work.span.secret,
    )
