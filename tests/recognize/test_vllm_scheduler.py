"""Our scheduler beside vLLM's own, on the same requests, with a model that says what it is told to: no weights."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-vllm")

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItem, PlaceholderRange
from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.utils import check_sequence_repetition
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from pipelines.recognize import vllm_scheduler
from pipelines.recognize.vllm_scheduler import ShortScheduler, loops
from tests.recognize.test_checkpoint import FIXTURE

END = 2
RUNNERS = pytest.mark.parametrize(("ahead", "second_runner"), [(True, True), (True, False), (False, False)])


def made(
    make: Callable[..., Any],
    blocks: int,
    ahead: bool = True,
    second_runner: bool = True,
    tokens: int = 512,
    places: int = 20,
    **options: Any,
) -> Any:
    """
    Args:
        ahead: asynchronous scheduling, which vLLM switches off on a CPU.
        second_runner: as vLLM's second model runner wants it, which needs a GPU.
    """
    config = EngineArgs(
        model=str(FIXTURE), max_model_len=512, max_num_seqs=places, max_num_batched_tokens=tokens, disable_log_stats=True,
        **({"enable_prefix_caching": False} | options),
    ).create_engine_config()  # fmt: skip
    config.scheduler_config.async_scheduling = ahead
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=16, num_kv_heads=2, head_size=64, dtype=torch.float32)
    scheduler = make(
        vllm_config=config, kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config), block_size=16, log_stats=False,
    )  # fmt: skip
    scheduler.use_v2_model_runner = second_runner
    return scheduler


def vllms(**arguments: Any) -> Any:
    return arguments["vllm_config"].scheduler_config.get_scheduler_cls()(**arguments)


@dataclass
class Asked:
    """One request, and what the model says to it, token by token; `END` comes where it is over."""

    name: str
    prompt: int
    says: list[int]
    most: int
    at: int  # step in which it comes
    kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY
    rule: tuple[int, int] | None = (4, 3)
    aborted: int | None = None  # step after which nobody wants it any more

    def request(self) -> Request:
        picture = MultiModalFeatureSpec(
            data=MultiModalKwargsItem.dummy(), modality="image", identifier=self.name,
            mm_position=PlaceholderRange(offset=2, length=self.prompt - 6),
        )  # fmt: skip
        detection = (
            None if self.rule is None else RepetitionDetectionParams(max_pattern_size=self.rule[0], min_count=self.rule[1])
        )
        parameters = SamplingParams(temperature=0.0, max_tokens=self.most, output_kind=self.kind, repetition_detection=detection)
        parameters.update_from_generation_config({}, END)
        return Request(self.name, [1] * self.prompt, parameters, None, mm_features=[picture], arrival_time=float(self.at))


def asked(seed: int, count: int = 150) -> list[Asked]:
    """Waves of crops, long and short answers, some that loop, some that nobody waits for to the end."""
    chance = random.Random(seed)
    requests = []
    for n in range(count):
        says = [chance.randrange(3, 40) for _ in range(chance.choice([1, 2, 3, 10, 60, 200]))]
        if chance.random() < 0.2:
            says += [5, 6, 7] * 20
        requests.append(
            Asked(
                f"r{n}", chance.randrange(12, 200), [*says, END], chance.choice([1, 2, 20, 300]), 12 * (n // 25),
                chance.choice([RequestOutputKind.FINAL_ONLY] * 5 + [RequestOutputKind.DELTA]),
                chance.choice([(4, 3), (4, 3), None]), chance.choice([None] * 9 + [12 * (n // 25) + chance.randrange(1, 60)]),
            )
        )  # fmt: skip
    return requests


@dataclass
class Run:
    answers: dict[str, list[int]] = field(default_factory=lambda: collections.defaultdict(list))
    reasons: dict[str, str] = field(default_factory=dict)
    sent: collections.Counter[str] = field(default_factory=collections.Counter)  # messages of an answer
    steps: list[Any] = field(default_factory=list)


def read(scheduler: Any, requests: list[Asked]) -> Run:
    """An engine's loop: schedules ahead, and hears of a step when the next one is under way."""
    run, waiting, queue, step = Run(), sorted(requests, key=lambda one: one.at), collections.deque[Any](), 0
    told = {one.name: one for one in requests}
    while waiting or queue or scheduler.has_requests():
        while waiting and waiting[0].at <= step:
            scheduler.add_request(waiting.pop(0).request())
        gone = [one.name for one in requests if one.aborted == step and one.name in scheduler.requests]
        scheduler.finish_requests(gone, RequestStatus.FINISHED_ABORTED)
        if scheduler.has_requests():
            output = scheduler.schedule()
            if output.total_num_scheduled_tokens:
                queue.append((output, _said(output, scheduler, told)))
            run.steps.append(_seen(output))
        if queue and (
            len(queue) > scheduler.scheduler_config.async_scheduling
            or not scheduler.has_requests()
            or not output.total_num_scheduled_tokens
        ):
            for outcome in scheduler.update_from_output(*queue.popleft()).values():
                for one in outcome.outputs:
                    run.answers[one.request_id] += one.new_token_ids
                    run.sent[one.request_id] += 1
                    if one.finish_reason is not None:
                        assert one.request_id not in run.reasons
                        run.reasons[one.request_id] = f"{one.finish_reason} {one.stop_reason}"
        step += 1
        assert step < 5000, "it does not end"
    return run


def _said(output: Any, scheduler: Any, told: dict[str, Asked]) -> ModelRunnerOutput:
    """What a model gives for a step: a token of each request whose tokens are all computed with it."""
    computed = dict(zip(output.scheduled_cached_reqs.req_ids, output.scheduled_cached_reqs.num_computed_tokens, strict=True))
    computed |= {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    names, tokens = list(output.num_scheduled_tokens), []
    for name, count in output.num_scheduled_tokens.items():
        one, request = told[name], scheduler.requests[name]
        nth = computed[name] + count - one.prompt
        whole = computed[name] + count >= len(request._all_token_ids)
        tokens.append([one.says[nth] if nth < len(one.says) else END] if nth >= 0 and whole else [])
    return ModelRunnerOutput(
        req_ids=names, req_id_to_index={name: n for n, name in enumerate(names)}, sampled_token_ids=tokens,
        logprobs=None, prompt_logprobs_dict={}, pooler_output=[],
    )  # fmt: skip


def _seen(output: Any) -> Any:
    """What the model's runner is told, in no order."""
    cached = output.scheduled_cached_reqs
    columns = (cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens, cached.new_block_ids)
    blocks = [
        (name, computed, said, None if new is None else len(new[0]))
        for name, computed, said, new in zip(*columns, strict=True)
    ]  # fmt: skip
    return (
        output.num_scheduled_tokens, output.total_num_scheduled_tokens, sorted(blocks), output.scheduled_encoder_inputs,
        [new.req_id for new in output.scheduled_new_reqs], set(output.finished_req_ids), output.preempted_req_ids,
        sorted(output.free_encoder_mm_hashes), cached.all_token_ids, cached.resumed_req_ids,
    )  # fmt: skip


@RUNNERS
@pytest.mark.parametrize("seed", range(4))
def test_each_step_and_each_answer_as_vllms_own(
    seed: int, ahead: bool, second_runner: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, runs, short = asked(seed), [], collections.Counter[str]()
    scheduled, noted = ShortScheduler._scheduled, ShortScheduler._noted

    def counted_before(self: Any, going: list[Request]) -> Any:
        short["before"] += len(going)
        return scheduled(self, going)

    def counted_after(self: Any, names: dict[str, int], found: Any) -> Any:
        rest = noted(self, names, found)
        short["after"] += len(names) - len(rest)
        return rest

    monkeypatch.setattr(ShortScheduler, "_scheduled", counted_before)
    monkeypatch.setattr(ShortScheduler, "_noted", counted_after)
    for make in (vllms, vllm_scheduler.scheduler):
        scheduler = made(make, 4096, ahead, second_runner, tokens=8192)
        runs.append(read(scheduler, requests))
        assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 4095  # vLLM keeps one for itself
    theirs, ours = runs
    assert isinstance(scheduler, ShortScheduler)
    assert ours.steps == theirs.steps
    assert ours.reasons == theirs.reasons
    assert {name: tokens for name, tokens in ours.answers.items() if name in ours.reasons} == {
        name: tokens for name, tokens in theirs.answers.items() if name in theirs.reasons
    }
    assert not scheduler._answers
    assert not scheduler._sent
    tokens = sum(len(said) for said in theirs.answers.values())
    assert short["before"] > 0.8 * tokens  # it was not vLLM's own code that did it
    assert short["after"] > 0.5 * tokens  # of five answers in six, and less their first and last tokens
    assert {reason.split()[0] for reason in ours.reasons.values()} >= {"stop", "length", "repetition"}


@RUNNERS
@pytest.mark.parametrize("seed", range(4))
def test_answers_where_room_is_scarce(seed: int, ahead: bool, second_runner: bool) -> None:
    """Requests are put back and begin again, prompts are computed in parts; which ones may differ, what is answered may not."""
    requests, runs, put_back = [one for one in asked(seed) if one.aborted is None], [], 0
    for make in (vllms, vllm_scheduler.scheduler):
        scheduler = made(make, 120, ahead, second_runner)
        runs.append(read(scheduler, requests))
        assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 119
        put_back += sum(len(step[6] or ()) for step in runs[-1].steps)
    assert put_back or not second_runner
    assert runs[1].answers == runs[0].answers
    assert runs[1].reasons == runs[0].reasons
    assert len(runs[1].reasons) == len(requests)


def test_an_answer_leaves_when_it_is_whole() -> None:
    """Token by token only where somebody reads along."""
    says = [*range(10, 70), END]
    whole, streamed = Asked("whole", 40, says, 300, 0), Asked("streamed", 40, says, 300, 0, RequestOutputKind.DELTA)
    run = read(made(vllm_scheduler.scheduler, blocks=512), [whole, streamed])
    assert run.answers["whole"] == run.answers["streamed"] == says
    assert run.sent["streamed"] == len(says)
    assert run.sent["whole"] <= 3  # its first two tokens, and the rest


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_is_what_vllm_takes_for_one(seed: int) -> None:
    chance, found = random.Random(seed), collections.Counter[bool]()
    for _ in range(4000):
        tokens = [chance.randrange(3) for _ in range(chance.randrange(1, 8))]
        tokens += [chance.randrange(3) for _ in range(chance.randrange(1, 4))] * chance.randrange(0, 5)
        longest, times, shortest = chance.randrange(1, 6), chance.randrange(2, 5), chance.randrange(0, 3)
        rule = RepetitionDetectionParams(max_pattern_size=longest, min_pattern_size=min(shortest, longest), min_count=times)
        theirs = check_sequence_repetition(tokens, rule)
        assert loops(tokens, max(1, min(shortest, longest)), longest, times) == theirs, (tokens, rule)
        found[theirs] += 1
    assert min(found.values()) > 200


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"enable_prefix_caching": True}, "prefix caching"),
        ({"scheduling_policy": "priority"}, "priorities"),
        ({"watermark": 0.1}, "a watermark of KV cache"),
    ],
)
def test_vllms_own_where_an_option_asks_for_more(options: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(vllm_scheduler, "_say", said.append)
    scheduler = made(vllm_scheduler.scheduler, blocks=512, **options)
    assert not isinstance(scheduler, ShortScheduler)
    assert type(scheduler) is AsyncScheduler
    assert said == [reason]


def test_vllms_own_where_its_source_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(vllm_scheduler, "_say", said.append)
    monkeypatch.setattr(vllm_scheduler, "VERIFIED", {"0" * 16: "0.1.0"})
    assert type(made(vllm_scheduler.scheduler, blocks=512)) is AsyncScheduler
    assert said == ["this vLLM's scheduler is not one that was compared (0.1.0)"]
