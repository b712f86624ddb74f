"""What a layout engine must do. One file per engine beside this one; importing this room imports none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipelines.schema import RasterPage, Region


class LayoutEngine(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def batch_pages(self) -> int:
        """How many pages to give it at once."""
        ...

    @property
    def weights(self) -> str:
        """SHA-256 (hex) of the weights file, "" where there is none; loads no model."""
        ...

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        """For each page its regions in reading order, boxes in pixels of that page.

        The text layer of a page may be consulted for sanity rules (never for content).
        """
        ...
