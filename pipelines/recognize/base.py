"""What a reader must do. One file per engine beside this one; importing this room imports none of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pipelines.schema import Block, Figure, RasterPage, Region


@dataclass(slots=True)
class Reading:
    """What reading a page gave."""

    blocks: list[Block]
    figures: list[Figure] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # each makes the page `degraded`
    timing: bool = False  # a deadline cut the reading short


class Reader(Protocol):
    name: str

    @property
    def weights(self) -> str:
        """SHA-256 (hex) over all weights files, "" where there are none; loads no model."""
        ...

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        """Reads every region of a page.

        Raises:
            EngineFailed: when the engine itself raised; never for a page without text (no blocks, or empty ones).
        """
        ...
