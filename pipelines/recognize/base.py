"""What a reader must do. One file per engine beside this one; importing this room imports none of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.schema import Block, Figure, Pixels, RasterPage, Region


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


# -- vision-language models: a page becomes requests, requests become answers, answers become blocks ------------------

Task = Literal["ocr", "table", "formula", "chart", "seal", "spotting"]


@dataclass(slots=True, frozen=True)
class Sampling:
    """How a model is to answer. None: the engine's own default."""

    temperature: float = 0.0
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int = 4096
    skip_special_tokens: bool = True  # False for spotting, whose places are special tokens
    ignore_eos: bool = False  # for benches: every answer has `max_tokens` tokens


@dataclass(slots=True, frozen=True)
class Packed:
    """A picture as a vision tower takes it, resized and cut by a CPU worker; the tower normalises it."""

    patches: npt.NDArray[np.uint8]  # (grid[1] * grid[2], 3, 14, 14), RGB, patches row by row
    grid: tuple[int, int, int]  # (1, patches down, patches across)


@dataclass(slots=True, frozen=True)
class Crop:
    """One question to a vision-language model: a picture of one region (or of several, stacked) and a task."""

    regions: tuple[int, ...]  # indices into the page's regions that the answer is for; the first one carries it
    pixels: Pixels  # (height, width, 3) uint8, RGB; (0, 0, 3) once `packed` or `encoded` stands for it
    task: Task
    prompt: str  # e.g. "OCR:"
    min_pixels: int
    max_pixels: int
    sampling: Sampling
    packed: Packed | None = None  # for an engine in this process
    encoded: bytes | None = None  # PNG or JPEG, for a server


PREFERRED = "prefer"  # rung of an answer that nobody was asked for: the text layer's; blocks do not show it, it was the first


@dataclass(slots=True, frozen=True)
class Answer:
    """What a model said, or why it did not."""

    text: str
    finish_reason: str = "stop"  # stop | length | repetition | error
    prompt_tokens: int = 0
    tokens: int = 0  # output tokens, all tries together
    tokens_saved: int = 0
    rung: str | None = None
    confidence: float | None = None  # exp of the mean log-probability, where the engine gives it
    error_code: str | None = None
    error_message: str = ""
    seconds: float = 0.0


class VisionEngine(Protocol):
    """A running model, in this process or behind a server. Hundreds of calls at once; each fails alone."""

    name: str

    async def answer(self, crop: Crop) -> Answer:
        """Never raises for what a crop or an answer is like: that is an `Answer` with an `error_code`.

        Raises:
            EngineGone: the engine is dead; this process can answer nothing any more.
        """
        ...

    def close(self) -> None:
        """Ends the engine; may be called twice."""
        ...
