"""Bench `precision`: what a setting of the engine does to what a model reads, and how sure it is of each token.

A checkpoint that reads (random weights tell nothing) is asked the same crops with one configuration after the other, all
crops at once as in production; the first configuration is what the others are compared with. Invariant: log-probabilities
are compared over equal answers only, token for token the same text.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing as mp
import random
import shlex
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

from jobs.benches.base import Figures
from jobs.common import Settings
from pipelines.config import Config, load
from pipelines.recognize.base import Answer, Crop, Sampling
from pipelines.recognize.specimen import specimens

_WORDS = (
    "harbour", "office", "counted", "ships", "paid", "dues", "storm", "invoice", "date", "section", "results", "quarter",
    "most", "people", "find", "the", "long", "way", "home", "1,482", "37.50", "20455", "14/03/2026", "412", "northern", "ledger",
)  # fmt: skip
_SIZES = (15, 18, 20, 24, 28)  # of the letters, pixels
_SEED = 5
_WITHOUT = ("answers", "exact", "as the first", "tokens")  # log-probabilities


@dataclass(slots=True, frozen=True)
class Asked:
    crop: Crop
    truth: str


def precision(
    model: Annotated[Path, typer.Argument(help="checkpoint that can read")],
    setups: Annotated[list[str], typer.Argument(help="section.key=value ..., settings of one configuration in one argument")],
    settings: Settings = None,
    lines: Annotated[int, typer.Option(help="pictures of a line of text, beside the two specimen pages")] = 400,
    confidence: Annotated[bool, typer.Option(help="ask for log-probabilities; without, as runs do, the answers alone")] = True,
) -> Figures:
    """What a setting of the engine does to answers and log-probabilities."""
    figures = Figures("precision", {"model": model.name, "lines": lines})
    first: list[Answer] = []
    truths = [asked.truth for asked in questions(load(settings=settings or []), lines)]
    for setup in setups:
        given = [f"vllm.model_dir={model}", f"vllm.confidence={confidence}", *(settings or []), *shlex.split(setup)]
        with ProcessPoolExecutor(1, mp.get_context("spawn")) as alone:  # an engine's memory ends with its process
            answers = alone.submit(answers_of, given, lines).result()
        first = first or answers
        row = compared(first, answers, truths)
        figures.rows.append({"setup": setup} | (row if confidence else {key: row[key] for key in _WITHOUT}))
        print(figures.rows[-1], flush=True)
    return figures


def questions(config: Config, lines: int) -> list[Asked]:
    """The specimen pages' regions and `lines` lines of words, always the same ones."""
    options = config.paddleocr_vl
    found = [Asked(crop, truth) for page in specimens() for crop, truth in page.crops(options)]
    drawn = random.Random(_SEED)
    for _ in range(lines):
        text = " ".join(drawn.choices(_WORDS, k=drawn.randint(2, 5)))
        size = drawn.choice(_SIZES)
        font = ImageFont.load_default(size)
        sheet = Image.new("RGB", (round(font.getlength(text)) + 12, size + 14), "white")
        ImageDraw.Draw(sheet).text((6, 4), text, fill="black", font=font)
        sampling = Sampling(max_tokens=options.max_new_tokens)
        pixels = np.asarray(sheet)
        found.append(Asked(Crop((0,), pixels, "ocr", "OCR:", options.min_pixels, options.max_pixels, sampling), text))
    return found


def answers_of(settings: list[str], lines: int) -> list[Answer]:
    """In a process of its own."""
    from pipelines.recognize.engines import form_of, identify
    from pipelines.recognize.vllm_engine import VllmEngine

    config = load(settings=["recognize.engine=vllm", *settings])
    form = form_of(config, identify(config))
    crops = [form(asked.crop) for asked in questions(config, lines)]
    engine = VllmEngine(config)

    async def all_at_once() -> list[Answer]:
        return list(await asyncio.gather(*(engine.answer(crop) for crop in crops)))

    try:
        return asyncio.run(all_at_once())
    finally:
        engine.close()


def compared(first: list[Answer], answers: list[Answer], truths: list[str]) -> dict[str, Any]:
    """
    Raises:
        RuntimeError: a crop was not answered at all.
    """
    if failed := [answer for answer in answers if answer.error_code]:
        raise RuntimeError(f"{len(failed)} crops had no answer: {failed[0].error_code} {failed[0].error_message}")
    same = [(a, b) for a, b in zip(first, answers, strict=True) if (a.text, a.tokens) == (b.text, b.tokens)]
    apart = [abs(_mean(b) - _mean(a)) for a, b in same]
    return {
        "answers": len(answers),
        "exact": f"{sum(a.text == truth for a, truth in zip(answers, truths, strict=True)) / len(answers):.1%}",
        "as the first": len(same), "tokens": sum(answer.tokens for answer in answers),
        "log-probability a token": round(sum(_mean(a) * a.tokens for a in answers) / sum(a.tokens for a in answers), 5),
        "apart, mean": float(f"{np.mean(apart) if apart else 0:.3g}"), "apart, most": float(f"{max(apart, default=0):.3g}"),
    }  # fmt: skip


def _mean(answer: Answer) -> float:
    """Of an answer's tokens' log-probabilities."""
    return math.log(answer.confidence) if answer.confidence else 0.0
