"""Reader `echo`: returns at once, for tests of scale and for measuring everything but reading.

Invariant: deterministic; touches no pixels.
"""

from __future__ import annotations

from pipelines.config import RecognizeConfig
from pipelines.recognize.base import Reading
from pipelines.schema import Block, RasterPage, Region


class EchoReader:
    name = "echo"
    weights = ""

    def __init__(self, config: RecognizeConfig) -> None:
        del config  # it has no options

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        size = f"{page.width_pt:.0f} x {page.height_pt:.0f} pt"
        words = " ".join(word.text for word in page.words[:8])
        return Reading(
            [
                Block(r.label, r.box, f"region {i} of a page of {size}: {words}", "none", self.name, "")
                for i, r in enumerate(regions)
            ]
        )
