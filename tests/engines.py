"""Vision engines for tests, loaded by the pipeline as `tests.engines:Name`: they answer with a digest of the picture."""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import EngineGone, EngineUnavailable
from pipelines.recognize.base import Answer, Crop
from pipelines.schema import Box, RasterPage, Region


class Digest:
    """Deterministic, slow enough that a kill lands in the middle of a run."""

    name = "digest"

    def __init__(self, config: Config) -> None:
        self.asked = 0

    async def answer(self, crop: Crop) -> Answer:
        self.asked += 1
        await asyncio.sleep(0.1)
        return Answer(f"{crop.prompt} {zlib.crc32(crop.pixels.tobytes()):08x} {crop.pixels.shape}", tokens=8, prompt_tokens=20)

    def close(self) -> None:
        pass


class LongFirst(Digest):
    """Its first three answers take until twelve others were given, as answers of thousands of tokens do among short ones."""

    LONG, OTHERS = 3, 12

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._given = 0
        self._enough = asyncio.Event()

    async def answer(self, crop: Crop) -> Answer:
        long = self.asked < self.LONG
        answer = await super().answer(crop)
        if long:
            await asyncio.wait_for(self._enough.wait(), 60)
        self._given += not long
        if self._given >= self.OTHERS:
            self._enough.set()
        return answer


class Bands:
    """Layout for tests: a paragraph above a table above a paragraph, whatever the page."""

    name = "bands"
    weights = ""
    batch_pages = 4

    def __init__(self, config: Config) -> None:
        pass

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        return [[self._band(page, *band) for band in ((0, "text"), (1, "table"), (2, "text"))] for page in pages]

    def _band(self, page: RasterPage, band: int, label: str) -> Region:
        height, width = page.pixels.shape[:2]
        return Region(label, Box(0.3, band * height / 3, width - 0.7, (band + 1) * height / 3 - 1), 0.9, label)


class DigestOnCard(Digest):
    """Notes on which card it is; answers when all of the run's actors on cards have done so, or a minute has passed."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._notes = _note_card(config, "engine")
        self._all = 4

    async def answer(self, crop: Crop) -> Answer:
        until = time.monotonic() + 60
        while len(list(self._notes.iterdir())) < self._all and time.monotonic() < until:
            await asyncio.sleep(0.1)
        return await super().answer(crop)


class BandsOnCard(Bands):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        _note_card(config, "layout")


def _note_card(config: Config, role: str) -> Path:
    notes = Path(str(config.source.cache_dir)).with_name("cards")
    notes.mkdir(exist_ok=True)
    if card := os.environ.get("CUDA_VISIBLE_DEVICES"):  # the driver, which asks for the engine's weights, has none
        (notes / f"{role}-{os.getpid()}").write_text(card)
    return notes


class Cut(Digest):
    """Says where its answers come from; those about tables are cut off in the middle."""

    name = "cut"

    async def answer(self, crop: Crop) -> Answer:
        if crop.task == "table":
            return Answer("<fcel>cut", "length", tokens=4096)
        return Answer(f"{self.name} read this", tokens=5)


class Whole(Cut):
    """Reads tables to their end, and notes in the run's cache folder what it was asked."""

    name = "whole"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._folder = Path(str(config.source.cache_dir))

    async def answer(self, crop: Crop) -> Answer:
        with (self._folder / "asked").open("a") as notes:
            notes.write(f"{crop.task}\n")
        return Answer("<fcel>whole<nl>", tokens=4) if crop.task == "table" else await super().answer(crop)


class Asked(Digest):
    """Says with which options it was asked."""

    name = "asked"

    async def answer(self, crop: Crop) -> Answer:
        return Answer(f"{crop.sampling.temperature} {crop.max_pixels}", tokens=3)


class Mortal(Digest):
    """Dies under its requests, twice; it counts its deaths in the run's cache folder."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._folder = Path(str(config.source.cache_dir))

    async def answer(self, crop: Crop) -> Answer:
        answer = await super().answer(crop)
        if self.asked > 5:
            for number in range(2):
                try:
                    (self._folder / f"died-{number}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                raise EngineGone("the test's engine died")
        return answer


class Stillborn(Digest):
    """Cannot start."""

    name = "stillborn"

    def __init__(self, config: Config) -> None:
        raise EngineUnavailable("6.77 of 7.96 GiB are free: --set vllm.gpu_memory_utilization=0.72")


class Difficult(Digest):
    """By what the page is: answers that loop, that are cut, empty, late, wrong; errors that no engine should raise."""

    name = "difficult"

    async def answer(self, crop: Crop) -> Answer:
        if crop.sampling.temperature > 0:
            return Answer("led out of the loop by other sampling", tokens=7)
        self.asked += 1
        kind = self.asked % 6
        if kind == 0:
            return Answer("so " * 32, "repetition", tokens=32, tokens_saved=4064)
        if kind == 1:
            return Answer("cut in the mid", "length", tokens=4096)
        if kind == 2:
            return Answer("", tokens=1)
        if kind == 3:
            return Answer("", "error", error_code="CROP_TIMEOUT", error_message="no answer")
        if kind == 4:
            raise RuntimeError("an engine that breaks its contract")
        return Answer("a good answer", tokens=3)
