"""Vision engines for tests, loaded by the pipeline as `tests.engines:Name`: they answer with a digest of the picture."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import EngineGone, EngineUnavailable
from pipelines.recognize.base import Answer, Crop


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
