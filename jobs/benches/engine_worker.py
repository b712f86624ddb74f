"""One engine of the bench `engine`, in a process of its own: takes pages from a common counter, reads them, says when.

Invariant: a page counts when its last crop is answered; an answer of another length than asked for is an error.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing as mp
import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jobs.benches.engine_profile import profiling
from jobs.benches.engine_server import Server, jpeg_url
from jobs.benches.workloads import BUDGET, Job, known, picture
from pipelines.config import load
from pipelines.recognize.base import Crop, Packed, Sampling
from pipelines.recognize.pack import pack
from pipelines.recognize.vllm_engine import VllmEngine

MODEL_LEN = 7520
_LOOK_S = 0.005  # between two looks at how many pages are ahead
_TAIL_AFTER_S = 10.0  # after the last page was taken, a tail is profiled: what was still ahead is done by then
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "WARNING",
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Spec:
    model: str
    kind: str  # packed | shipped | server
    seqs: int  # most places of any of its setups
    engines: int  # most engines of any of its setups
    kv_mib: float
    batched: int
    eager: bool
    extra: str
    packers: int  # of a card
    profile: str = ""  # folder that the profiler writes into; "": it is off
    card: str = ""  # number of the card it runs on; "": the one that is visible


class Recorded(NamedTuple):
    """Of the engine that takes one of these pages, kernels from then on; 1: of the one that finds no more, in the tail."""

    seconds: float = 0.0  # 0: nothing is recorded
    shares: tuple[float, ...] = ()  # of a round's pages

    def begins(self, number: int, pages: int) -> bool:
        return self.seconds > 0 and number in {int(share * pages) for share in self.shares}


@dataclass(slots=True, frozen=True)
class Order:
    """A round's work, the same for all engines of a setup: each takes the next page that nobody has."""

    pages: list[list[Job]]
    places: int
    wave: int
    ahead_pages: int  # being packed, or with a crop that the engine was not yet offered
    number: int
    recorded: Recorded


@dataclass(slots=True)
class Finished:
    page_ends: list[float] = field(default_factory=list)  # time.time()
    tokens: int = 0
    packing_s: float = 0.0  # of CPU, in the packing workers
    fed: float = 0.0  # when no page was left to take
    end: float = 0.0


def serve(spec: Spec, pipe: Any, counter: Any) -> None:
    """The process: starts its engine, says how long that took, then one round after the other until `None` comes."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    if spec.card:
        os.environ["CUDA_VISIBLE_DEVICES"] = spec.card
    try:
        asyncio.run(_serve(spec, pipe, counter))
    except Exception:
        pipe.send(traceback.format_exc())


async def _serve(spec: Spec, pipe: Any, counter: Any) -> None:
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(max(1, spec.packers // spec.engines), mp.get_context("spawn")) as pool:
        engine = _Reading(spec, pool)
        warm = Order(known(4, 99), spec.seqs, 1, 4, 99, Recorded())  # other crops than any round's
        engine.prepare(warm)
        await engine.read_all(warm, itertools.count().__next__)
        pipe.send(time.monotonic() - began)
        while (order := await loop.run_in_executor(None, pipe.recv)) is not None:
            engine.prepare(order)
            counter.value = 0
            pipe.send("prepared")
            await loop.run_in_executor(None, pipe.recv)

            def take() -> int:
                with counter.get_lock():
                    counter.value += 1
                    return int(counter.value) - 1

            pipe.send(await engine.read_all(order, take))
        engine.close()


def pack_page(jobs: list[Job], seed: int) -> tuple[list[Packed], float]:
    """Draws and packs a page's crops; CPU seconds of the packing alone."""
    drawn = [picture(job, seed + n) for n, job in enumerate(jobs)]
    began = time.process_time()
    return [pack(pixels, *BUDGET) for pixels in drawn], time.process_time() - began


class _Engine(Protocol):
    @property
    def under_way(self) -> int:
        """Crops that were offered and have no answer yet."""
        ...

    async def answer(self, job: Job, picture_of: Any) -> None: ...

    def admit(self, places: int, wave: int) -> None: ...

    def close(self) -> None: ...


class _Packed:
    """The product's engine: crops come packed."""

    def __init__(self, spec: Spec) -> None:
        extra = json.loads(spec.extra) | (profiling(Path(spec.profile)) if spec.profile else {})
        settings: dict[str, Any] = {
            "vllm.model_dir": spec.model, "vllm.load_format": "dummy", "vllm.dtype": extra.pop("dtype", "bfloat16"),
            "vllm.max_num_seqs": spec.seqs, "vllm.max_num_batched_tokens": spec.batched, "vllm.enforce_eager": spec.eager,
            "vllm.kv_cache_memory_bytes": int(spec.kv_mib * spec.seqs * (1 << 20)), "vllm.engine_args": json.dumps(extra),
            "vllm.max_model_len": MODEL_LEN, "recognize.crop_deadline_s": 3600, "recognize.loop_pattern": 0,
        }  # fmt: skip
        self._engine = VllmEngine(load(settings=[f"{key}={value}" for key, value in settings.items()]))

    @property
    def under_way(self) -> int:
        return self._engine.under_way

    def admit(self, places: int, wave: int) -> None:
        self._engine.admit(places, wave)

    async def answer(self, job: Job, picture_of: Any) -> None:
        crop = Crop(
            (0,), np.empty((0, 0, 3), np.uint8), "ocr", "OCR:", *BUDGET, Sampling(max_tokens=job.tokens, ignore_eos=True),
            packed=picture_of,
        )  # fmt: skip
        answer = await self._engine.answer(crop)
        if answer.tokens != job.tokens:
            raise RuntimeError(f"{answer.tokens} tokens came, {job.tokens} were asked for: {answer.error_message}")

    async def profile(self, after: float, seconds: float) -> None:
        await asyncio.sleep(after)
        await self._engine._engine.start_profile()
        await asyncio.sleep(seconds)
        await self._engine._engine.stop_profile()

    def close(self) -> None:
        self._engine.close()


class _Shipped:
    """vLLM as it comes: pictures go to the engine, its own class encodes them."""

    def __init__(self, spec: Spec) -> None:
        from transformers import AutoTokenizer
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments: dict[str, Any] = {
            "model": spec.model, "load_format": "dummy", "dtype": "bfloat16", "max_model_len": MODEL_LEN,
            "max_num_seqs": spec.seqs, "max_num_batched_tokens": spec.batched, "enforce_eager": spec.eager,
            "enable_prefix_caching": False, "mm_processor_cache_gb": 0, "limit_mm_per_prompt": {"image": 1}, "seed": 0,
            "disable_log_stats": True, "mm_processor_kwargs": {"min_pixels": BUDGET[0], "max_pixels": BUDGET[1]},
            "kv_cache_memory_bytes": int(spec.kv_mib * spec.seqs * (1 << 20)), "gpu_memory_utilization": 0.05,
        }  # fmt: skip
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**(arguments | json.loads(spec.extra))))
        self._places = asyncio.Semaphore(spec.seqs)
        self.under_way = 0
        self._numbers = itertools.count()
        content = [{"type": "image"}, {"type": "text", "text": "OCR:"}]
        self._text = AutoTokenizer.from_pretrained(spec.model).apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )

    def admit(self, places: int, wave: int) -> None:  # noqa: ARG002 vLLM has no waves
        self._places = asyncio.Semaphore(2 * places)  # so that its own queue is never empty

    async def answer(self, job: Job, picture_of: Any) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=0.0, max_tokens=job.tokens, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
        )
        given = {"prompt": self._text, "multi_modal_data": {"image": picture_of}}
        came = -1
        async with self._places:
            self.under_way += 1
            async for output in self._engine.generate(given, parameters, f"request-{next(self._numbers)}"):
                came = len(output.outputs[0].token_ids)
            self.under_way -= 1
        if came != job.tokens:
            raise RuntimeError(f"{came} tokens came, {job.tokens} were asked for")

    def close(self) -> None:
        self._engine.shutdown()


def _engine(spec: Spec) -> _Engine:
    kinds: dict[str, Callable[[Spec], _Engine]] = {"packed": _Packed, "shipped": _Shipped, "server": Server}
    return kinds[spec.kind](spec)


def _as_it_is(drawn: Any) -> Any:
    return drawn


class _Reading:
    """One engine and what feeds it."""

    def __init__(self, spec: Spec, pool: ProcessPoolExecutor) -> None:
        self._kind = spec.kind
        self._engine: _Engine = _engine(spec)
        self._pool = pool
        self._drawn: dict[int, list[Any]] = {}

    def prepare(self, order: Order) -> None:
        """For vLLM as shipped: pictures (files, for its server) are in memory before the clock starts, to its advantage."""
        if self._kind != "packed":
            from PIL import Image

            form = jpeg_url if self._kind == "server" else _as_it_is
            self._drawn = {
                number: [form(Image.fromarray(picture(job, number * 100 + n))) for n, job in enumerate(jobs)]
                for number, jobs in enumerate(order.pages)
            }

    async def read_all(self, order: Order, take: Callable[[], int]) -> Finished:
        self._engine.admit(order.places, order.wave)
        result, ahead = Finished(), _Ahead(self._engine)
        pages: list[asyncio.Task[None]] = []
        while True:
            while ahead.pages() >= order.ahead_pages:
                await asyncio.sleep(_LOOK_S)
            number = take()
            if order.recorded.begins(number, len(order.pages)) and isinstance(self._engine, _Packed):
                wait = _TAIL_AFTER_S if number == len(order.pages) else 0.0
                pages.append(asyncio.create_task(self._engine.profile(wait, order.recorded.seconds)))
            if number >= len(order.pages):
                break
            ahead.packing += 1
            pages.append(asyncio.create_task(self._page(order, number, ahead, result)))
        result.fed = time.time()
        await asyncio.gather(*pages)
        result.end = time.time()
        return result

    async def _page(self, order: Order, number: int, ahead: _Ahead, result: Finished) -> None:
        jobs = order.pages[number]
        if self._kind != "packed":
            pictures = self._drawn.pop(number)
        else:
            loop = asyncio.get_running_loop()
            pictures, seconds = await loop.run_in_executor(self._pool, pack_page, jobs, order.number * 1_000_003 + number * 100)
            result.packing_s += seconds
        ahead.asked(len(jobs))
        await asyncio.gather(*(self._answer(job, one, ahead) for job, one in zip(jobs, pictures, strict=True)))
        result.tokens += sum(job.tokens for job in jobs)
        result.page_ends.append(time.time())

    async def _answer(self, job: Job, picture_of: Any, ahead: _Ahead) -> None:
        await self._engine.answer(job, picture_of)
        ahead.answered += 1

    def close(self) -> None:
        self._engine.close()


class _Ahead:
    """How many pages are ahead of an engine: a page is, until its last crop was offered. Crops are offered in order.

    A page that waits for one long answer is not: it takes a place in the engine, and nothing of it is kept here.
    """

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.packing = 0
        self.answered = 0
        self._crops = 0  # asked so far
        self._lasts: deque[int] = deque()  # of each page, how many crops were asked with its own

    def asked(self, crops: int) -> None:
        self.packing -= 1
        self._crops += crops
        self._lasts.append(self._crops)

    def pages(self) -> int:
        offered = self.answered + self._engine.under_way
        while self._lasts and self._lasts[0] <= offered:
            self._lasts.popleft()
        return self.packing + len(self._lasts)
