"""What is tried for a crop whose answer repeated itself: other sampling, a sharper picture, and at last the text layer.

Invariant: an answer says how it came about: the rung that gave it, the tokens of all tries together, and the tokens that
cutting the loops saved. What loops on every rung keeps its first answer, with a code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from pipelines.errors import AnswerLoop
from pipelines.recognize.base import Answer, Crop, Sampling, VisionEngine

Redraw = Callable[[Crop], Awaitable[Crop | None]]  # the same crop from a page drawn at a higher resolution; None: there is none

# Greedy decoding that entered a loop stays in it: some chance and a price on what was said lead out. Seeded by the engine,
# so that two runs do the same.
_TEMPERATURE, _TOP_P, _PENALTY = 0.3, 0.9, 1.08


async def read(engine: VisionEngine, crop: Crop, rungs: Sequence[str], redraw: Redraw | None) -> Answer:
    """Asks, and goes down the ladder where the answer loops.

    Raises:
        EngineGone
    """
    first = await engine.answer(crop)
    if first.finish_reason != "repetition":
        return first
    tokens, saved, seconds = first.tokens, first.tokens_saved, first.seconds
    for rung in rungs:
        other = crop
        if rung == "sampling":
            other = replace(crop, sampling=other_sampling(crop.sampling))
        elif rung == "redraw":
            larger = await redraw(crop) if redraw is not None else None
            if larger is None:
                continue
            other = larger
        else:
            continue  # the text layer is where the page is: assemble/, in `finish`
        answer = await engine.answer(other)
        tokens, saved, seconds = tokens + answer.tokens, saved + answer.tokens_saved, seconds + answer.seconds
        if answer.finish_reason == "stop" and answer.text.strip():
            return replace(answer, rung=rung, tokens=tokens, tokens_saved=saved, seconds=seconds)
    return replace(
        first,
        tokens=tokens,
        tokens_saved=saved,
        seconds=seconds,
        error_code=AnswerLoop.code,
        error_message="the answer repeated itself and was cut, on every rung",
    )


def other_sampling(sampling: Sampling) -> Sampling:
    return replace(sampling, temperature=_TEMPERATURE, top_p=_TOP_P, repetition_penalty=_PENALTY)
