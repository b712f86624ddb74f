"""What a rasterizer must do inside the child process. One file per outside library; importing this room imports none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipelines.schema import Probe, RasterPage


class Rasterizer(Protocol):
    name: str

    def open(self, path: str, passwords: Sequence[str]) -> Probe:
        """Opens a document and counts its pages.

        Raises:
            Encrypted, DamagedDocument, NoPages, UnsupportedFormat, HtmlPage, EmptyFile
        """
        ...

    def render(self, page_index: int, dpi: float, max_megapixels: float) -> RasterPage:
        """Renders one page of the open document, annotations and form fields drawn, its rotation applied.

        Raises:
            PageDamaged
        """
        ...

    def close(self) -> None: ...
