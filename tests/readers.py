"""Readers for tests, loaded by the pipeline as `tests.readers:Name`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipelines.config import RecognizeConfig
from pipelines.layout.rules import around
from pipelines.recognize.base import Reading
from pipelines.recognize.echo import EchoReader
from pipelines.schema import Block, RasterPage, Region, Word

MEMORY_THRESHOLD = "RAY_memory_usage_threshold"  # of a private cluster's monitor


HURRY = "PAGEMILL_TESTS_HURRY"  # names a file; Ray's workers have the variable from whoever started the cluster


class SlowReader(EchoReader):
    """Takes a quarter of a second a page, so that a kill lands in the middle of a run; none while that file is there."""

    name = "slow"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        if not os.path.exists(os.environ.get(HURRY, "")):
            time.sleep(0.25)
        return super().read(page, regions)


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """For a run that nobody disturbs, in whichever processes: what it reads is the same, and bears the same name."""
    file = Path(os.environ[HURRY])
    file.touch()
    try:
        yield
    finally:
        file.unlink()


class StuckReader(EchoReader):
    """Reads its first page at once and takes minutes for every other."""

    name = "stuck"
    at_once = 1
    _read = 0

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        self._read += 1
        if self._read > self.at_once:
            time.sleep(300)
        return super().read(page, regions)


class LaterStuckReader(StuckReader):
    """Reads a run's first two blocks, of one page and of two, in whichever order Ray hands them on."""

    at_once = 3


class LineReader(EchoReader):
    """One block for each paragraph of the text layer: the box around its words, and its lines."""

    name = "lines"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        groups: list[list[Word]] = []
        for word in page.words:
            box = word.box
            if groups and min(abs(box.x0 - o.box.x0) + abs(box.y0 - o.box.y0) for o in groups[-1]) < 120:
                groups[-1].append(word)
            else:
                groups.append([word])
        blocks = []
        for words in groups:
            text = " ".join(word.text for word in words)
            blocks.append(Block("text", around([w.box for w in words]).scaled(page.scale), text, "text_layer", self.name, ""))
        return Reading(blocks)


class PoisonReader(EchoReader):
    """Ends its process, as a bug in native code would, on a page that says POISON."""

    name = "poison"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        if any(word.text == "POISON" for word in page.words):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(page, regions)


class MoodyReader(EchoReader):
    """Fails pages that say BROKEN, and with `recognize.ocr: tiny` those that say PLAIN."""

    name = "moody"

    def __init__(self, config: RecognizeConfig) -> None:
        super().__init__(config)
        self._hates = "PLAIN" if config.ocr == "tiny" else "BROKEN"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        if any(word.text == self._hates for word in page.words):
            raise ValueError(self._hates)
        return super().read(page, regions)


class RaisingReader(EchoReader):
    """Raises where a page says RAISE, as a bug in an engine would."""

    name = "raising"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        if any(word.text == "RAISE" for word in page.words):
            return self._deep_inside(page)
        return super().read(page, regions)

    def _deep_inside(self, page: RasterPage) -> Reading:
        raise ValueError(f"could not broadcast {len(page.words)} words")


class ShoutingReader(LineReader):
    """Reads the same lines, in capitals: a drift of every text."""

    name = "shouting"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        reading = super().read(page, regions)
        for block in reading.blocks:
            block.content = block.content.upper()
        return reading


class TokenReader(LineReader):
    """The same text from one crop at any resolution; the tokens that it says it took grow with the picture."""

    name = "tokens"

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        reading = super().read(page, regions)
        for block in reading.blocks[:1]:
            block.source, block.tokens = "pixels", round(page.pixels.shape[0] / 10)
        return reading


class HungryReader(EchoReader):
    """Takes memory on a page that says HUNGRY until Ray's memory monitor ends it; on one that says PECKISH only the first
    time, which a folder that the environment names remembers."""

    name = "hungry"
    _MOST_MIB = 4096  # whatever else the machine does meanwhile

    def read(self, page: RasterPage, regions: list[Region]) -> Reading:
        said = {word.text for word in page.words}
        if "HUNGRY" in said or ("PECKISH" in said and self._first_time()):
            self._eat(float(os.environ[MEMORY_THRESHOLD]))
        return super().read(page, regions)

    def _first_time(self) -> bool:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.environ["PAGEMILL_TEST_SATED"])
            return True
        return False

    def _eat(self, threshold: float) -> None:
        held = []
        while len(held) < self._MOST_MIB // 64 and memory_share() < threshold + 0.01:
            held.append(b"x" * (64 << 20))
        time.sleep(60)


class GluttonReader(HungryReader):
    """Takes that memory to begin with, as one whose model is too large, in a worker of Ray's."""

    name = "glutton"

    def __init__(self, config: RecognizeConfig) -> None:
        super().__init__(config)
        if "RAY_RAYLET_PID" in os.environ:
            self._eat(float(os.environ[MEMORY_THRESHOLD]))


def memory_share() -> float:
    """What of the machine's memory is used, as Ray's monitor counts it."""
    memory = psutil.virtual_memory()
    return 1 - memory.available / memory.total
