"""How many steps an engine hands to its card before it has heard of the first: vLLM has two, we take more.

A step that takes crops costs the host 40 ms before its first kernel, one that only decodes takes the card 4: with two under way
the card waits for the host at each of the former, and with more it works off what is queued. vLLM sizes what steps share by
its `max_concurrent_batches`, which is larger than two where a pipeline has several stages; it is all that is changed here.

Invariant: a step sees what those before it have written, as they run one after the other on one stream; an answer that ended
is computed on for as many steps as were under way, and those tokens are dropped, as vLLM does with its one.
"""

from __future__ import annotations

from vllm.config import VllmConfig

_KEY = "pagemill_steps"  # of vLLM's additional_config, which goes with it to the engine's process


class _Steps(VllmConfig):
    @property
    def max_concurrent_batches(self) -> int:
        return int(self.additional_config[_KEY])


def with_steps(config: VllmConfig, steps: int) -> VllmConfig:
    """`config` itself, changed; as it is where steps are not made up ahead by vLLM's second model runner on one card."""
    ahead = config.scheduler_config.async_scheduling and config.use_v2_model_runner
    if steps > 2 and ahead and config.parallel_config.world_size == 1 and isinstance(config.additional_config, dict):
        config.additional_config[_KEY] = steps
        config.__class__ = _Steps
    return config
