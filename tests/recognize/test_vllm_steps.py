"""How many steps an engine has under way: what vLLM is told, on its way to the engine's process."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-vllm")

from vllm.engine.arg_utils import EngineArgs

from pipelines.recognize.vllm_steps import with_steps
from tests.recognize.test_checkpoint import FIXTURE


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As on a card: the second model runner, and steps made up ahead."""
    made = EngineArgs(model=str(FIXTURE), max_model_len=512, max_num_seqs=8, max_num_batched_tokens=512).create_engine_config()
    made.scheduler_config.async_scheduling = True
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    return made


def test_so_many_in_the_engines_process_too(config: Any) -> None:
    assert config.max_concurrent_batches == 2
    for arrived in (with_steps(config, 4), pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert arrived.max_concurrent_batches == 4
        assert arrived.model_config.max_model_len == 512


@pytest.mark.parametrize("but", ["first runner", "one after the other", "two cards", "vLLM's own number"])
def test_vllms_own_number_elsewhere(config: Any, but: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if but == "first runner":
        monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    elif but == "one after the other":
        config.scheduler_config.async_scheduling = False
    elif but == "two cards":
        config.parallel_config.world_size = 2
    was = config.max_concurrent_batches
    assert with_steps(config, 2 if but == "vLLM's own number" else 4).max_concurrent_batches == was
    assert was <= 2
