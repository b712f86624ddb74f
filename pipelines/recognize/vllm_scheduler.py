"""vLLM's scheduler with a short way for answers that only go on, so that two or three engines fill a card where it took four.

Python is the limit of an engine: with a thousand answers vLLM's scheduler and the noting of their tokens took half of its
time (docs/performance.md has the profile), 25 ms of a step whose kernels take 4. Nearly all of those answers are in the same
state: one token more to compute, one token more to note. They are looked at here, in two tight loops; everything else (new
crops, prompts in parts, an answer's last tokens, too little KV cache, whatever an option asks for) is left to vLLM's own code.

Invariant: each answer to the token, and what the model computes in a step, is what vLLM's own scheduler gives; but where a step's
tokens or the KV cache do not suffice for all, answers go before prompts. An answer that is wanted whole (FINAL_ONLY) leaves
the engine's process when it is done, in place of token by token. Where vLLM's source is not what was compared, or the engine has
options that this was not written for, vLLM's own scheduler runs and the log says so.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from vllm.sampling_params import RequestOutputKind
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.sched.utils import check_sequence_repetition, check_stop
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request, RequestStatus

from pipelines.observe.log import EventLog
from pipelines.recognize.upstream_source import source_digest

# What is done again here, by the digest of vLLM's source.
VERIFIED = {
    "d479c0ac02856a3b": "0.25.1",
    "9c5abb82aed1df03": "0.32.0",
}
MIRRORED = (
    Scheduler.schedule, Scheduler._update_after_schedule, Scheduler._make_cached_request_data, Scheduler.update_from_output,
    Scheduler._update_request_with_output, Scheduler._free_encoder_inputs, AsyncScheduler, check_stop,
    check_sequence_repetition, Request.append_output_token_ids, SchedulerOutput, CachedRequestData,
)  # fmt: skip

_FURTHER_OUTPUTS = ("enable_return_routed_experts", "aux_output_connector", "return_sampling_mask", "is_mm_encoder_only")

_LIMITS = ("max_num_scheduled_tokens", "max_num_running_reqs", "max_num_active_reqs")  # of one step; the last of later versions

log = EventLog()


def scheduler(**arguments: Any) -> Scheduler:
    """What vLLM's engine makes its scheduler by."""
    base, ours = (
        (AsyncScheduler, _ShortAsync) if arguments["vllm_config"].scheduler_config.async_scheduling else (Scheduler, _Short)
    )
    if source_digest(MIRRORED) not in VERIFIED:
        _say(f"this vLLM's scheduler is not one that was compared ({', '.join(VERIFIED.values())})")
        return base(**arguments)
    made = ours(**arguments)
    if (reason := made.refusal()) is not None:
        _say(reason)
        made.__class__ = base  # not made a second time: it may hold a connector, or a socket
    return made


class _Answer(NamedTuple):
    """What decides whether an answer goes on, looked up once."""

    request: Request
    tokens: list[int]  # vLLM's own list
    all_tokens: list[int]  # the prompt's, too
    ends: frozenset[int]
    last: int  # number of tokens with which it ends at the latest
    loop: tuple[int, int, int] | None  # shortest and longest pattern, times


class ShortScheduler(Scheduler):
    """Mixed into vLLM's scheduler, or its asynchronous one; `scheduler` says whether it may be used."""

    running: list[Request]
    _ahead = 0  # tokens that count as an answer's before they are known, for each step that is under way

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._answers: dict[str, _Answer | None] = {}  # None: vLLM's own code does all of it
        self._sent: dict[str, int] = {}  # tokens of an answer that have left; only of those with some
        self._manager = self.kv_cache_manager.coordinator.single_type_managers[0]
        self._block: int = self._manager.block_size

    def refusal(self) -> str | None:
        """Why this engine needs vLLM's own; None: it does not."""
        config, groups = self.vllm_config, self.kv_cache_config.kv_cache_groups
        reasons = {
            "prefix caching": self.cache_config.enable_prefix_caching,
            "LoRA": self.lora_config is not None,
            "speculative decoding": self.num_spec_tokens > 0 or config.speculative_config is not None,
            "a KV or encoder connector": self.connector is not None or self.ec_connector is not None,
            "statistics": self.log_stats,
            "priorities": self.policy.value != "fcfs",
            "several stages or contexts": self.use_pp or self.dcp_world_size > 1 or self.pcp_world_size > 1,
            "outputs beside the text": any(getattr(self, name, None) for name in _FURTHER_OUTPUTS),
            "another kind of model": self.is_encoder_decoder or self.num_sampled_tokens_per_step != 1,
            "another kind of KV cache": len(groups) != 1 or type(groups[0].kv_cache_spec) is not FullAttentionSpec,
            "a watermark of KV cache": self.scheduler_config.watermark > 0,
        }
        return next((reason for reason, is_so in reasons.items() if is_so), None)

    # -- before a step ---------------------------------------------------------------------------------------------------

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        going = self._going_on() if self._pause_state == PauseState.UNPAUSED and not throttle_prefills else []
        if len(going) < 2:  # vLLM looks for a prefix that all share where one is alone
            return super().schedule(throttle_prefills)
        cached = self._scheduled(going)
        running, chosen = self.running, set(cached.req_ids)
        limits = {name: getattr(self, name) for name in _LIMITS if hasattr(self, name)}
        self.running = [request for request in running if request.request_id not in chosen]
        try:
            for name, limit in limits.items():
                setattr(self, name, limit - len(going))
            others = super().schedule(throttle_prefills)
        finally:
            for name, limit in limits.items():
                setattr(self, name, limit)
            known = {request.request_id for request in running}
            kept = [request for request in running if request.status == RequestStatus.RUNNING]
            self.running = kept + [request for request in self.running if request.request_id not in known]
        return self._joined(cached, others)

    def _going_on(self) -> list[Request]:
        """Answers with one token to compute, for which there is KV cache; none where that is scarce."""
        found: list[Request] = []
        blocks, size, longest = self._manager.req_to_blocks, self._block, self.max_model_len - 1
        before = None if self.use_v2_model_runner else self.prev_step_scheduled_req_ids
        full = 0
        for request in self.running:
            computed, ahead = request.num_computed_tokens, request.num_output_placeholders
            if (
                request.is_prefill_chunk
                or computed + 1 != len(request._all_token_ids) + ahead
                or (ahead > 0 and computed + 2 - ahead >= request.num_prompt_tokens + request.max_tokens)
                or computed >= longest
                or request.spec_token_ids
                or request.structured_output_request is not None
                or (before is not None and request.request_id not in before)
            ):
                continue
            if len(blocks[request.request_id]) * size <= computed:
                full += 1
            found.append(request)
        room = min(self.max_num_scheduled_tokens, self.max_num_running_reqs)
        return found if full <= self.kv_cache_manager.block_pool.get_num_free_blocks() and len(found) <= room else []

    def _scheduled(self, going: list[Request]) -> CachedRequestData:
        """One token of each is in the next step: what the model's runner has to know of them."""
        blocks, size, allocate = self._manager.req_to_blocks, self._block, self.kv_cache_manager.allocate_slots
        counted = hasattr(going[0], "num_in_flight_tokens")  # by later versions
        names: list[str] = []
        fresh: list[tuple[list[int], ...] | None] = []
        computed: list[int] = []
        outputs: list[int] = []
        for request in going:
            name, done = request.request_id, request.num_computed_tokens
            names.append(name)
            if len(blocks[name]) * size > done:
                fresh.append(None)
            else:
                added = allocate(request, 1)
                assert added is not None  # `_going_on` saw a free block for each
                fresh.append(added.get_block_ids(allow_none=True))
            computed.append(done)
            outputs.append(len(request._output_token_ids) + request.num_output_placeholders)
            request.num_computed_tokens = done + 1
            request.num_output_placeholders += self._ahead
            if counted:
                request.num_in_flight_tokens += 1
        return CachedRequestData(
            req_ids=names, resumed_req_ids=set(), new_token_ids=[], all_token_ids={}, new_block_ids=fresh,
            num_computed_tokens=computed, num_output_tokens=outputs,
        )  # fmt: skip

    def _joined(self, ours: CachedRequestData, others: SchedulerOutput) -> SchedulerOutput:
        theirs = others.scheduled_cached_reqs
        others.scheduled_cached_reqs = CachedRequestData(
            req_ids=ours.req_ids + theirs.req_ids, resumed_req_ids=theirs.resumed_req_ids,
            new_token_ids=theirs.new_token_ids, all_token_ids=theirs.all_token_ids,
            new_block_ids=ours.new_block_ids + theirs.new_block_ids,
            num_computed_tokens=ours.num_computed_tokens + theirs.num_computed_tokens,
            num_output_tokens=ours.num_output_tokens + theirs.num_output_tokens,
        )  # fmt: skip
        others.num_scheduled_tokens = dict.fromkeys(ours.req_ids, 1) | others.num_scheduled_tokens
        others.total_num_scheduled_tokens += len(ours.req_ids)
        if not self.use_v2_model_runner:
            self.prev_step_scheduled_req_ids.update(ours.req_ids)
        return others

    # -- after a step ----------------------------------------------------------------------------------------------------

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: Any) -> dict[int, Any]:
        rest = self._noted(scheduler_output.num_scheduled_tokens, model_runner_output)
        left = copy.copy(scheduler_output)
        left.num_scheduled_tokens = rest
        partly = {name: (answer.tokens, self._sent.get(name, 0)) for name in rest if (answer := self._answer(name)) is not None}
        outputs: dict[int, Any] = super().update_from_output(left, model_runner_output)
        for outcome in outputs.values():
            for output in outcome.outputs:
                if output.request_id in partly:
                    tokens, sent = partly[output.request_id]
                    output.new_token_ids = tokens[sent:]
                    if output.finish_reason is None:
                        self._sent[output.request_id] = len(tokens)
        return outputs

    def _noted(self, scheduled: dict[str, int], found: Any) -> dict[str, int]:
        """Notes the new token of each answer that goes on; which requests are left to vLLM."""
        sampled, index = found.sampled_token_ids, found.req_id_to_index
        if not sampled or found.num_nans_in_logits:
            return scheduled
        rest: dict[str, int] = {}
        running = RequestStatus.RUNNING
        for name, count in scheduled.items():
            answer = self._answer(name)
            if answer is None or count != 1:
                rest[name] = count
                continue
            new, (request, tokens, all_tokens, ends, last, loop) = sampled[index[name]], answer
            # two tokens before: vLLM's own code has let go of the picture with the first, and the second at the latest
            if len(new) != 1 or new[0] in ends or not 1 < len(tokens) < last - 1 or request.status != running or _stale(request):
                rest[name] = count
                continue
            tokens.append(new[0])
            if loop is not None and loops(tokens, *loop):
                tokens.pop()
                rest[name] = count
                continue
            all_tokens.append(new[0])
            request.num_output_placeholders -= self._ahead
            if hasattr(request, "num_in_flight_tokens"):
                request.num_in_flight_tokens -= 1
        return rest

    def _answer(self, name: str) -> _Answer | None:
        if name in self._answers:
            return self._answers[name]
        request = self.requests.get(name)
        if request is None:  # it ended while the step ran
            return None
        self._answers[name] = made = self._known(request)
        return made

    def _known(self, request: Request) -> _Answer | None:
        parameters = request.sampling_params
        if (
            parameters is None
            or parameters.output_kind != RequestOutputKind.FINAL_ONLY
            or parameters.num_logprobs is not None
            or parameters.prompt_logprobs is not None
            or parameters.min_tokens > 0
            or parameters.stop
            or request.structured_output_request is not None
            or request.resumable
            or request._block_hasher is not None
        ):
            return None
        ends = set(parameters.stop_token_ids or ())
        if parameters.eos_token_id is not None:
            ends.add(parameters.eos_token_id)
        rule = parameters.repetition_detection
        least = min(request.max_tokens, self.max_model_len - request.num_prompt_tokens)
        loop = None if rule is None else (max(1, rule.min_pattern_size), rule.max_pattern_size, rule.min_count)
        return _Answer(request, request._output_token_ids, request._all_token_ids, frozenset(ends), least, loop)

    def _free_request(self, request: Request, *arguments: Any, **named: Any) -> Any:
        self._answers.pop(request.request_id, None)
        self._sent.pop(request.request_id, None)
        return super()._free_request(request, *arguments, **named)


class _Short(ShortScheduler):
    """One step after the other, as on a CPU."""


class _ShortAsync(ShortScheduler, AsyncScheduler):
    """A step is made up while the one before it runs."""

    _ahead = 1


def loops(tokens: list[int], shortest: int, longest: int, times: int) -> bool:
    """vLLM's `check_sequence_repetition`: whether tokens end in a pattern of such a length, so many times in a row."""
    if times < 2 or shortest > longest or tokens[-1] not in tokens[-1 - longest : -1]:
        return False
    for length in range(shortest, longest + 1):
        whole = length * times
        if whole > len(tokens):
            return False
        if tokens[-1 - length] == tokens[-1] and tokens[-whole:-length] == tokens[length - whole :]:
            return True
    return False


def _stale(request: Request) -> bool:
    """A token of a step that began before the request lost its KV cache."""
    return bool(getattr(request, "async_tokens_to_discard", 0) or getattr(request, "num_stale_output_tokens", 0))


def _say(reason: str) -> None:
    log.warning("short_scheduler_off", instead="vLLM's own runs, and an engine's host has twice as much to do", reason=reason)
