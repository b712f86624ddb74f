"""Engine `vllm`: PaddleOCR-VL in this process by vLLM's AsyncLLM. The only importer of `vllm`, beside the vision tower.

Invariant: a crop fails alone (refused, past its deadline, an error of its request); a dead or hanging engine is `EngineGone`
and nothing else. Image work is not done here: crops come as uint8 patches from CPU workers, and raw pixels are taken for
tests and small uses only. Prefix and image caches are off: no crop comes twice, and hashing each would cost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pipelines.config import Config, VllmConfig
from pipelines.errors import ConfigError, CropTimeout, EngineFailed, EngineGone, EngineUnavailable, UnusableCrop
from pipelines.observe.log import EventLog
from pipelines.recognize import gpu_memory
from pipelines.recognize.admission import Admission
from pipelines.recognize.base import Answer, Crop, Packed, Sampling, Task
from pipelines.recognize.checkpoint import format_of
from pipelines.recognize.decode_graphs import VLLMS_MOST, graph_sizes
from pipelines.recognize.first_sight import reason_for_upstream
from pipelines.recognize.gpu_budget import layout_bytes
from pipelines.recognize.loops import LoopRule, LoopWatch
from pipelines.recognize.model_dir import locate, weights_bytes
from pipelines.recognize.orphans import announce

log = EventLog()

_HUNG_AFTER = 8  # crops past their deadline in a row, without any answer between them
_SPOTTING_PIXELS = 1_605_632  # of the task `spotting`, whatever is configured
_MERGED = 4  # patches to a token
_PROMPT_TOKENS = 64  # of the chat template and the task
_SEED = 1  # of the rung "sampling": two runs say the same
# taken of the checkpoint's generation_config.json where none is configured, as `vllm serve` does; the rest always is configured
_GENERATION = ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")

# read by vllm when it is imported: no telemetry (P7), quiet, no hub (what a hub id names is here by then)
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false", "VLLM_CONFIGURE_LOGGING": "1",
}  # fmt: skip


class VllmEngine:
    """A running engine. Made in one thread, asked in any one event loop.

    Raises (the constructor):
        ConfigError: no such model, or settings that contradict each other.
        EngineUnavailable: it cannot start; the message has the value to set.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._check()
        model = locate(config.vllm.model_dir, config.vllm.storage_options)
        os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
        self.name = f"vllm/{model.name}"
        self._prompts = _Prompts(model)
        self._admission = Admission(_places(config.vllm), config.vllm.wave)
        self._numbers = itertools.count()
        self._late = 0  # crops past their deadline since the last answer
        arguments = _arguments(config, model)
        if (reason := reason_for_upstream(model, config)) is not None:
            arguments["additional_config"] = {"pagemill_upstream": reason} | arguments.get("additional_config", {})
        self._engine: Any = _started(config, arguments, weights_bytes(model))
        self._generation = _generation(self._engine.model_config)

    async def answer(self, crop: Crop) -> Answer:
        """See `VisionEngine`."""
        started = time.perf_counter()
        request = f"crop-{next(self._numbers)}"
        async with self._admission.place():
            try:
                async with asyncio.timeout(self._config.recognize.crop_deadline_s):
                    answer = await self._generate(self._prompt(crop, request), crop.sampling, crop.task, request)
            except UnusableCrop as error:
                answer = Answer("", "error", error_code=error.code, error_message=str(error))
            except TimeoutError:
                answer = self._timed_out()
            except Exception as error:
                answer = self._failed(error)
            else:
                self._late = 0
        return dataclasses.replace(answer, seconds=time.perf_counter() - started)

    def admit(self, places: int, wave: int) -> None:
        """Other places and waves than the configured ones, from here on; nothing may be under way. For tuning."""
        self._admission = Admission(min(places, _places(self._config.vllm)), wave)

    @property
    def under_way(self) -> int:
        return self._admission.under_way

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    # -- one request -----------------------------------------------------------------------------------------------------

    def _prompt(self, crop: Crop, request: str) -> dict[str, Any]:
        if crop.packed is not None:
            return self._prompts.packed(crop, crop.packed, request)
        if not crop.pixels.size:
            raise UnusableCrop("a crop without pixels")
        return self._prompts.raw(crop)

    async def _generate(self, prompt: dict[str, Any], sampling: Sampling, task: Task, request: str) -> Answer:
        """Leaving it by cancellation aborts the request in the engine."""
        rule = LoopRule.of(self._config.recognize, task)
        cuts = _engine_cuts_loops()
        parameters = _parameters(
            sampling, self._generation, rule if cuts else None, final_only=cuts or rule is None, confidence=self._confidence
        )
        stream = self._engine.generate(prompt, parameters, request)
        if rule is not None and not cuts:
            return await self._watched(stream, LoopWatch(rule), request, sampling)
        last = [output async for output in stream][-1]  # one, unless deltas were asked for
        said = last.outputs[0]
        return _answer(last, said.text, len(said.token_ids), str(said.finish_reason), sampling, said.cumulative_logprob)

    async def _watched(self, stream: AsyncIterator[Any], watch: LoopWatch, request: str, sampling: Sampling) -> Answer:
        """For a vLLM without `repetition_detection`: reads token by token, and aborts a loop."""
        text, tokens, logprob, last = "", 0, 0.0, None
        async for last in stream:
            said = last.outputs[0]
            text, tokens = text + said.text, tokens + len(said.token_ids)
            if watch.feed(said.token_ids):
                await self._engine.abort(request)
                return _answer(last, text, tokens, "repetition", sampling, None)
            logprob = said.cumulative_logprob
        assert last is not None
        return _answer(last, text, tokens, str(last.outputs[0].finish_reason), sampling, logprob)

    @property
    def _confidence(self) -> bool:
        return self._config.vllm.confidence

    def _timed_out(self) -> Answer:
        self._late += 1
        if self._late >= min(_HUNG_AFTER, _places(self._config.vllm)) or self._engine.errored:
            raise EngineGone(f"{self._late} crops in a row had no answer within {self._config.recognize.crop_deadline_s:g} s")
        return Answer(
            "", "error", error_code=CropTimeout.code,
            error_message=f"no answer within recognize.crop_deadline_s={self._config.recognize.crop_deadline_s:g}",
        )  # fmt: skip

    def _failed(self, error: Exception) -> Answer:
        """One request's failure, or the engine's end."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if isinstance(error, EngineDeadError) or self._engine.errored:
            raise EngineGone(f"vLLM's engine died: {type(error).__name__}: {error}") from error
        return Answer("", "error", error_code=EngineFailed.code, error_message=f"{type(error).__name__}: {error}")

    # -- start -----------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        options, vllm = self._config.paddleocr_vl, self._config.vllm
        picture = _most_pixels(self._config)[1] // 784
        needed = picture + _PROMPT_TOKENS + options.max_new_tokens
        if vllm.max_model_len < needed:
            raise ConfigError(
                f"vllm.max_model_len={vllm.max_model_len}: a picture of {picture} tokens, the prompt and an answer of "
                f"{options.max_new_tokens} need {needed}. Try: --set vllm.max_model_len={needed}"
            )
        if vllm.max_num_batched_tokens < picture + _PROMPT_TOKENS:
            raise ConfigError(
                f"vllm.max_num_batched_tokens={vllm.max_num_batched_tokens}: a picture may have {picture} tokens. "
                f"Try: --set vllm.max_num_batched_tokens={max(2048, picture + _PROMPT_TOKENS)}"
            )


class _Prompts:
    """The checkpoint's own chat template, which differs between versions 1 and 1.5, rendered and encoded once a task."""

    def __init__(self, model: Path) -> None:
        from transformers import AutoTokenizer

        self._format = format_of(model)
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._image_id = int(json.loads((model / "config.json").read_text("utf-8"))["image_token_id"])
        self._encoded: dict[str, tuple[list[int], list[int]]] = {}

    def raw(self, crop: Crop) -> dict[str, Any]:
        """A prompt whose picture vLLM prepares, in this process."""
        from PIL import Image

        return {
            "prompt": self._format.prompt(crop.prompt),
            "multi_modal_data": {"image": Image.fromarray(crop.pixels)},
            "mm_processor_kwargs": {"min_pixels": crop.min_pixels, "max_pixels": crop.max_pixels},
        }

    def packed(self, crop: Crop, picture: Packed, name: str) -> dict[str, Any]:
        """A finished input of the engine: nothing is left to do here but to send it."""
        import torch
        from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange

        head, tail = self._question(crop.prompt)
        tokens = picture.grid[1] * picture.grid[2] // _MERGED
        patches = picture.patches if picture.patches.flags.writeable else picture.patches.copy()  # torch wants to own it
        items = MultiModalKwargsItems.from_hf_inputs(
            {"pixel_values": [torch.from_numpy(patches)], "image_grid_thw": torch.tensor([picture.grid])},
            {
                "pixel_values": MultiModalFieldConfig.batched("image"),
                "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            },
        )
        return {
            "type": "multimodal",
            "prompt_token_ids": head + [self._image_id] * tokens + tail,
            "mm_kwargs": items,
            "mm_hashes": {"image": [name]},  # caches are off; a name is all that is needed
            "mm_placeholders": {"image": [PlaceholderRange(offset=len(head), length=tokens)]},
        }

    def _question(self, prompt: str) -> tuple[list[int], list[int]]:
        """Token ids before the picture, and after it."""
        if prompt not in self._encoded:
            head, tail = (
                self._tokenizer.encode(part, add_special_tokens=False)
                for part in (self._format.before, f"{self._format.between}{prompt}{self._format.after}")
            )
            self._encoded[prompt] = head, tail
        return self._encoded[prompt]


def _places(vllm: VllmConfig) -> int:
    """Crops under way at once. A batch's size decides which kernels run and in which order they add, in the tower as in the
    language model, so where equal input must give equal text a crop is alone from its first step to its last."""
    return 1 if vllm.deterministic else vllm.max_num_seqs


def _most_pixels(config: Config) -> tuple[int, int]:
    """Largest (least, most) pixels of any question that this configuration can raise: what memory is profiled for."""
    options = config.paddleocr_vl
    extra = options.vlm_extra_args.items()
    least = [options.min_pixels, *(value for key, value in extra if key.endswith("_min_pixels"))]
    most = [options.max_pixels, *(value for key, value in extra if key.endswith("_max_pixels"))]
    most += [_SPOTTING_PIXELS] if options.prompt_label == "spotting" else []
    return max(least), max(most)


def _arguments(config: Config, model: Path) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs; those of `vllm.engine_args` come last."""
    vllm = config.vllm
    least, most = _most_pixels(config)
    arguments: dict[str, Any] = {
        "model": str(model),
        "load_format": vllm.load_format,
        "dtype": vllm.dtype,
        "max_model_len": vllm.max_model_len,
        "max_num_seqs": _places(vllm),
        "max_num_batched_tokens": vllm.max_num_batched_tokens,
        "enforce_eager": vllm.enforce_eager,
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        "limit_mm_per_prompt": {"image": 1},
        # in this form memory profiling sees it; as `size` it would profile the checkpoint's own, larger budget
        "mm_processor_kwargs": {"min_pixels": least, "max_pixels": most},
        "disable_log_stats": True,
        "trust_remote_code": False,
        # takes uint8 patches, encodes all crops of a step at once, and is upstream's own where that was not verified
        "model_class_overrides": {"PaddleOCRVLForConditionalGeneration": "pipelines.recognize.vllm_model:PackedPaddleOCRVL"},
        "scheduler_cls": "pipelines.recognize.vllm_scheduler.scheduler",  # its host is the limit of an engine
        "seed": 0,
    }
    if vllm.kv_cache_memory_bytes is not None:
        arguments["kv_cache_memory_bytes"] = vllm.kv_cache_memory_bytes
    if _places(vllm) > VLLMS_MOST and "compilation_config" not in vllm.engine_args:
        arguments["cudagraph_capture_sizes"] = graph_sizes(_places(vllm))
    return arguments | vllm.engine_args


_UNASKED = 0.05  # of the card must be free when an engine starts whose KV cache is given in bytes; vLLM asks no more of it
_CPU_KV_BYTES = 1 << 28  # without a card vLLM would claim half of the machine's memory


def _started(whole: Config, arguments: dict[str, Any], weights: int) -> Any:
    """An AsyncLLM; on a card, in this engine's turn and within its share."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    config = whole.vllm
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    if unknown := sorted(set(arguments) - known):
        raise ConfigError(f"vllm.engine_args: this vLLM has no {', '.join(unknown)}")

    def start() -> Any:
        announce()
        began = time.monotonic()
        try:
            engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except Exception as error:  # whatever it is: the engine does not run, and vLLM has said why above
            raise EngineUnavailable(f"vLLM did not start: {type(error).__name__}: {error}") from error
        log.info("engine_started", seconds=time.monotonic() - began, model=arguments["model"])
        return engine

    if not current_platform.is_cuda_alike():
        arguments.setdefault("kv_cache_memory_bytes", _CPU_KV_BYTES)
        return start()
    if config.kv_cache_memory_bytes is not None:  # its memory is settled, nothing is measured: no turn to wait for
        arguments.setdefault("gpu_memory_utilization", _UNASKED)
        return start()
    card = gpu_memory.visible_card()
    with gpu_memory.Starts(card).turn() as others:
        if "gpu_memory_utilization" not in config.engine_args:
            asked, engines, layout = config.gpu_memory_utilization, config.engines_per_gpu, gpu_memory.LayoutOnCard(card)

            def share(found: gpu_memory.Card) -> float:
                reserve = int(config.reserve_gib * (1 << 30)) + layout.left_free(layout_bytes(whole))
                return gpu_memory.share(found, asked, engines, others, reserve, weights)

            arguments["gpu_memory_utilization"] = gpu_memory.settled_share(lambda: gpu_memory.measure(card), share)
        return start()


def _engine_cuts_loops() -> bool:
    from vllm import SamplingParams

    return "repetition_detection" in SamplingParams.__struct_fields__


def _generation(model_config: Any) -> dict[str, Any]:
    """What the checkpoint says of sampling (`generation_config=vllm` in vllm.engine_args: nothing)."""
    return {name: value for name, value in model_config.get_diff_sampling_param().items() if name in _GENERATION}


def _parameters(
    sampling: Sampling, generation: dict[str, Any], rule: LoopRule | None, *, final_only: bool, confidence: bool
) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    given: dict[str, Any] = generation | {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
        "skip_special_tokens": sampling.skip_special_tokens,
        "ignore_eos": sampling.ignore_eos,
        "output_kind": RequestOutputKind.FINAL_ONLY if final_only else RequestOutputKind.DELTA,
    }
    if sampling.top_p is not None:
        given["top_p"] = sampling.top_p
    if sampling.repetition_penalty is not None:
        given["repetition_penalty"] = sampling.repetition_penalty
    if sampling.temperature > 0:
        given["seed"] = _SEED
    if confidence:
        given["logprobs"] = 0
    if rule is not None:
        from vllm.sampling_params import RepetitionDetectionParams

        given["repetition_detection"] = RepetitionDetectionParams(max_pattern_size=rule.longest, min_count=rule.repeats)
    return SamplingParams(**given)


def _answer(last: Any, text: str, tokens: int, reason: str, sampling: Sampling, logprob: float | None) -> Answer:
    """
    Args:
        reason: vLLM's: stop, length, repetition, abort, error.
        logprob: sum over the answer's tokens.
    """
    if reason in ("abort", "error"):
        return Answer(text, "error", tokens=tokens, error_code=EngineFailed.code, error_message=f"vLLM ended it with {reason!r}")
    return Answer(
        text,
        reason,
        prompt_tokens=len(last.prompt_token_ids or ()),
        tokens=tokens,
        tokens_saved=sampling.max_tokens - tokens if reason == "repetition" else 0,
        confidence=math.exp(logprob / tokens) if logprob is not None and tokens else None,
    )
