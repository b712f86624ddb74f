"""Bench `scheduling`: what an engine's host does for its answers in each step, by vLLM's scheduler and by ours; needs no card.

All answers are under way and go on, as in most steps; a model that always says the next number stands in their place. Invariant:
both schedulers are asked the same, at once the one and at once the other, and both finish all answers.
"""

from __future__ import annotations

import collections
import itertools
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.benches.base import Figures

_PROMPT, _PICTURE, _BLOCK = 100, 90, 16


def scheduling(
    model: Annotated[Path, typer.Argument(help="a checkpoint of PaddleOCR-VL; only its configuration is read")],
    answers: Annotated[int, typer.Option(help="under way at once")] = 1024,
    tokens: Annotated[int, typer.Option(help="of each")] = 200,
    rounds: Annotated[int, typer.Option(help="of both schedulers, in turns")] = 3,
) -> Figures:
    """Milliseconds of Python an engine's host spends on a step of answers that go on, with vLLM's scheduler and with ours."""
    import vllm

    from pipelines.recognize.vllm_scheduler import scheduler

    figures = Figures("scheduling", {"answers": answers, "tokens": tokens, "rounds": rounds, "vLLM": vllm.__version__})
    found: dict[tuple[str, bool], list[tuple[float, float]]] = collections.defaultdict(list)
    for _ in range(rounds):
        for watched in (False, True):
            for whose, make in (("vLLM's", _vllms), ("ours", scheduler)):
                found[whose, watched].append(step_ms(make, model, answers, tokens, watched))
    for (whose, watched), times in found.items():
        before, after = (statistics.median(each) for each in zip(*times, strict=True))
        loops = "24 tokens, 32 times" if watched else "not looked for"
        figures.rows.append(
            {"scheduler": whose, "loops": loops, "before a step, ms": round(before, 2), "after it, ms": round(after, 2)}
        )
    return figures


def step_ms(make: Callable[..., Any], model: Path, answers: int, tokens: int, watched: bool) -> tuple[float, float]:
    """Medians over the steps with all answers in them: making one up, and noting what came of one."""
    scheduler, queue = _made(make, model, answers, tokens), collections.deque[tuple[Any, Any]]()
    for number in range(answers):
        scheduler.add_request(_request(f"r{number}", tokens, watched))
    says, before, after, ended = random.Random(7), [], [], 0
    while scheduler.has_requests() or queue:
        if scheduler.has_requests():
            begun = time.perf_counter()
            output = scheduler.schedule()
            before += [(time.perf_counter() - begun) * 1e3] if _full(output, answers) else []
            if output.total_num_scheduled_tokens:
                queue.append((output, _said(output, says)))
        if queue and (len(queue) == 2 or not output.total_num_scheduled_tokens):
            done, said = queue.popleft()
            begun = time.perf_counter()
            outcomes = scheduler.update_from_output(done, said)
            after += [(time.perf_counter() - begun) * 1e3] if _full(done, answers) else []
            ended += sum(one.finish_reason is not None for outcome in outcomes.values() for one in outcome.outputs)
    if ended != answers:
        raise RuntimeError(f"{ended} of {answers} answers ended")
    return statistics.median(before), statistics.median(after)


def _full(output: Any, answers: int) -> bool:
    """All answers, each with one token."""
    return bool(len(output.num_scheduled_tokens) == output.total_num_scheduled_tokens == answers)


def _vllms(**arguments: Any) -> Any:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    return AsyncScheduler(**arguments)


def _made(make: Callable[..., Any], model: Path, answers: int, tokens: int) -> Any:
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    config = EngineArgs(
        model=str(model), max_model_len=_PROMPT + tokens + _BLOCK, max_num_seqs=answers, max_num_batched_tokens=16_384,
        enable_prefix_caching=False, disable_log_stats=True,
    ).create_engine_config()  # fmt: skip
    config.scheduler_config.async_scheduling = True  # as on a card; vLLM switches it off on a CPU
    config.cache_config.num_gpu_blocks = blocks = 2 + answers * (2 + (_PROMPT + tokens) // _BLOCK)
    spec = FullAttentionSpec(block_size=_BLOCK, num_kv_heads=2, head_size=128, dtype=torch.bfloat16)
    scheduler = make(
        vllm_config=config, kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config), block_size=_BLOCK, log_stats=False,
    )  # fmt: skip
    scheduler.use_v2_model_runner = True
    return scheduler


def _request(name: str, tokens: int, watched: bool) -> Any:
    from vllm import SamplingParams
    from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItem, PlaceholderRange
    from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind
    from vllm.v1.request import Request

    picture = MultiModalFeatureSpec(
        data=MultiModalKwargsItem.dummy(), modality="image", identifier=name,
        mm_position=PlaceholderRange(offset=4, length=_PICTURE),
    )  # fmt: skip
    parameters = SamplingParams(
        temperature=0.0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY,
        repetition_detection=RepetitionDetectionParams(max_pattern_size=24, min_count=32) if watched else None,
    )  # fmt: skip
    return Request(name, [1] * _PROMPT, parameters, None, mm_features=[picture])


def _said(output: Any, says: random.Random) -> Any:
    """A token of each request whose prompt is computed with this step."""
    from vllm.v1.outputs import ModelRunnerOutput

    cached, names = output.scheduled_cached_reqs, list(output.num_scheduled_tokens)
    computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    computed |= {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    whole = [computed[name] + output.num_scheduled_tokens[name] >= _PROMPT for name in names]
    return ModelRunnerOutput(
        req_ids=names, req_id_to_index=dict(zip(names, itertools.count(), strict=False)),
        sampled_token_ids=[[says.randrange(5, 4000)] if done else [] for done in whole],
        logprobs=None, prompt_logprobs_dict={}, pooler_output=[],
    )  # fmt: skip
