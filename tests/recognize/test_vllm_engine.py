"""vLLM for real, on the CPU, with a model that reads: the class that an actor on a GPU holds, in the process of this test."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipelines.config import Config, load
from pipelines.errors import ConfigError, EngineGone
from pipelines.recognize import ladder, vllm_engine
from pipelines.recognize.base import Answer, Crop, Sampling, Task
from pipelines.recognize.engines import form_of, identify, load_vision
from pipelines.schema import Pixels
from tests.vllm.settings import FIXTURE, settings

pytest.importorskip("vllm", reason="vLLM is not in this environment: `make .venv-vllm`; make test runs this file there")
pytestmark = pytest.mark.timeout(600)  # the engine's start is in the first test

LINES = [
    "Hello world 123", "pagemill turns archives", "The quick brown fox 7", "Invoice 2024-11-03", "ledger of the harbour",
    "12.50 and 340", "a", "north and south", "every page once", "Thursday evening", "read, blank, failed", "total 20.40",
]  # fmt: skip


def picture(text: str, size: int = 20) -> Pixels:
    font = ImageFont.load_default(size)
    sheet = Image.new("RGB", (round(font.getlength(text)) + 12, size + 14), "white")
    ImageDraw.Draw(sheet).text((6, 4), text, fill="black", font=font)
    return np.asarray(sheet)


def crop(pixels: Pixels, task: Task = "ocr", prompt: str = "OCR:", max_tokens: int = 256) -> Crop:
    return Crop((0,), pixels, task, prompt, 784, 200704, Sampling(max_tokens=max_tokens))


class Running:
    """The engine with a loop of its own."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engine: Any = load_vision(config)
        self.form = form_of(config, identify(config))
        self._runner = asyncio.Runner()

    def ask(self, crops: list[Crop]) -> list[Answer]:
        async def all_at_once() -> list[Answer]:
            return list(await asyncio.gather(*(self.engine.answer(one) for one in crops)))

        return self._runner.run(all_at_once())

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def close(self) -> None:
        self.engine.close()
        self._runner.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    made = Running(load(settings=settings(recognize__loop_repeats=12)))
    yield made
    made.close()


@pytest.fixture
def configured(running: Running) -> Iterator[Callable[..., None]]:
    """Changes settings that are looked up for each crop."""
    before = running.engine._config

    def change(**changes: object) -> None:
        recognize = before.recognize.model_copy(update=changes)
        running.engine._config = before.model_copy(update={"recognize": recognize})

    yield change
    running.engine._config = before


def test_reads_what_stands_there(running: Running) -> None:
    answers = running.ask([running.form(crop(picture(text))) for text in LINES])
    assert [answer.text for answer in answers] == LINES
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert all(answer.tokens >= 2 and answer.prompt_tokens > 5 and answer.seconds > 0 for answer in answers)
    assert running.engine.under_way == 0


def test_packed_outside_as_prepared_by_vllm(running: Running) -> None:
    """The patches that a CPU worker cut, and the picture through vLLM's own processor: the same prompt, the same answer."""
    crops = [crop(picture(text, size)) for text in LINES[:6] for size in (14, 20, 28)]
    packed, raw = running.ask([running.form(one) for one in crops]), running.ask(crops)
    assert [(a.text, a.tokens, a.prompt_tokens) for a in packed] == [(a.text, a.tokens, a.prompt_tokens) for a in raw]


def test_same_tokens_as_transformers(running: Running) -> None:
    import torch
    from transformers import AutoProcessor, PaddleOCRVLForConditionalGeneration

    from pipelines.recognize.checkpoint import format_of

    torch.set_num_threads(1)
    model = PaddleOCRVLForConditionalGeneration.from_pretrained(FIXTURE, dtype=torch.float32).eval()
    # transformers 5.19 resamples position embeddings with aligned corners; PaddleX and vLLM do not
    model.model.visual.vision_model.embeddings.interpolation_align_corners = False
    processor = AutoProcessor.from_pretrained(FIXTURE)
    crops = [crop(picture(text, size), max_tokens=64) for text in LINES for size in (15, 24)]
    expected = []
    for one in crops:
        inputs = processor(
            images=Image.fromarray(one.pixels), text=format_of(FIXTURE).prompt(one.prompt), return_tensors="pt",
            size={"shortest_edge": one.min_pixels, "longest_edge": one.max_pixels},
        )  # fmt: skip
        with torch.inference_mode():
            said = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        expected.append((processor.tokenizer.decode(said, skip_special_tokens=True), len(said), inputs["input_ids"].shape[1]))
    answers = running.ask([running.form(one) for one in crops])
    assert [(answer.text, answer.tokens, answer.prompt_tokens) for answer in answers] == expected


def test_many_at_once_share_the_places(running: Running) -> None:
    answers = running.ask([running.form(crop(picture(LINES[n % len(LINES)]))) for n in range(80)])
    assert [answer.text for answer in answers] == [LINES[n % len(LINES)] for n in range(80)]
    assert running.engine._admission.most == 16


def test_bad_crops_fail_alone(running: Running) -> None:
    white = np.full((40, 200, 3), 255, np.uint8)
    good = running.form(crop(picture("every page once")))
    bad = [
        crop(np.zeros((1, 1, 3), np.uint8)),
        crop(np.full((3, 20_000, 3), 128, np.uint8)),  # 1 to 6,667
        crop(np.full((20_000, 90, 3), 255, np.uint8)),
        crop(white),
        crop(np.empty((0, 0, 3), np.uint8)),
        crop(np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8), max_tokens=40),
        replace(crop(picture("Thursday")), prompt="What is this?"),
    ]
    answers = running.ask([good, *bad, good])
    assert answers[0].text == answers[-1].text == "every page once"
    assert [answer.error_code is None for answer in answers[1:-1]] == [True, False, False, True, False, True, True]
    assert answers[5].error_code == "UNUSABLE_CROP"
    assert running.ask([good])[0].text == "every page once"


def test_an_answer_ends_at_its_allowance(running: Running) -> None:
    (answer,) = running.ask([running.form(crop(picture("pagemill turns archives"), max_tokens=4))])
    assert (answer.finish_reason, answer.tokens) == ("length", 4)
    assert answer.text == "pagemill turns archives"[: len(answer.text)]


@pytest.mark.parametrize("watched", [False, True])
def test_loops_are_cut_while_they_happen(running: Running, monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    """By the engine itself, and, for a vLLM that cannot, by a watch on the stream that aborts the request."""
    if watched:
        monkeypatch.setattr("pipelines.recognize.vllm_engine._engine_cuts_loops", lambda: False)
    (answer,) = running.ask([running.form(crop(picture("m" * 30)))])
    assert answer.finish_reason == "repetition"
    assert 12 <= answer.tokens <= 14
    assert answer.tokens_saved == 256 - answer.tokens
    assert set(answer.text) == {"m"}
    assert running.engine._engine.output_processor.get_num_unfinished_requests() == 0


def test_generation_settings_are_the_checkpoints_where_none_are_configured(running: Running, tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    assert running.engine._generation == {}  # its generation_config.json has no such settings
    shutil.copytree(FIXTURE, tmp_path / "model")
    told = {"repetition_penalty": 1.3, "top_k": 5, "temperature": 0.7, "max_new_tokens": 9}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(told))
    found = vllm_engine._generation(AsyncEngineArgs(model=str(tmp_path / "model"), dtype="float32").create_model_config())
    assert found == {"repetition_penalty": 1.3, "top_k": 5}
    parameters = vllm_engine._parameters(Sampling(max_tokens=40), found, None, final_only=True, confidence=False)
    assert (parameters.repetition_penalty, parameters.temperature, parameters.max_tokens) == (1.3, 0, 40)
    warm = vllm_engine._parameters(Sampling(temperature=0.5), found, None, final_only=True, confidence=False)
    assert (warm.top_k, warm.temperature) == (5, 0.5)
    asked = Sampling(max_tokens=40, repetition_penalty=1.1)
    assert vllm_engine._parameters(asked, found, None, final_only=True, confidence=False).repetition_penalty == 1.1


def test_down_the_ladder(running: Running) -> None:
    looping = running.form(crop(picture("m" * 30)))
    asked: list[Crop] = []

    async def redraw(blurred: Crop) -> Crop:
        asked.append(blurred)
        return running.form(crop(picture("Thursday evening")))

    answer = running.run(ladder.read(running.engine, looping, ["redraw"], redraw))
    assert (answer.text, answer.rung, answer.error_code) == ("Thursday evening", "redraw", None)
    assert answer.tokens >= 12 + 16
    assert answer.tokens_saved > 200
    assert asked == [looping]
    given_up = running.run(ladder.read(running.engine, looping, ["text_layer"], None))
    assert (given_up.error_code, given_up.finish_reason) == ("ANSWER_LOOP", "repetition")


def test_a_crop_that_is_alone_has_the_same_numbers_in_any_company(running: Running) -> None:
    """`vllm.deterministic`: the sums of log-probabilities are equal to the last bit, whatever is asked before and after."""
    before = running.engine._config
    alone = before.vllm.model_copy(update={"deterministic": True, "confidence": True})
    crops = [running.form(crop(picture(text))) for text in LINES]
    try:
        running.engine._config = before.model_copy(update={"vllm": alone})
        running.engine.admit(512, 32)
        forwards = running.ask(crops)
        assert running.engine._admission.most == 1
        backwards = running.ask(crops[::-1])[::-1]
    finally:
        running.engine._config = before
        running.engine.admit(512, 32)
    assert [answer.text for answer in forwards] == LINES
    assert [answer.confidence for answer in forwards] == [answer.confidence for answer in backwards]
    assert len({answer.confidence for answer in forwards}) > 1
    assert vllm_engine._arguments(load(settings=settings(vllm__deterministic=True)), FIXTURE)["max_num_seqs"] == 1


def test_past_its_deadline(running: Running, configured: Callable[..., None]) -> None:
    configured(crop_deadline_s=0.0001)
    late = running.ask([running.form(crop(picture(text))) for text in LINES[:3]])
    assert {answer.error_code for answer in late} == {"CROP_TIMEOUT"}
    configured(crop_deadline_s=60.0)
    assert running.ask([running.form(crop(picture("Thursday evening")))])[0].text == "Thursday evening"
    assert running.engine._engine.output_processor.get_num_unfinished_requests() == 0  # what was late was aborted


def test_what_does_not_fit_is_said_before_the_start() -> None:
    with pytest.raises(ConfigError, match=r"--set vllm\.max_model_len=4416"):
        load_vision(load(settings=settings(paddleocr_vl__max_new_tokens=4096)))
    with pytest.raises(ConfigError, match="no such directory"):
        load_vision(load(settings=settings(vllm__model_dir="/no/such/model")))
    with pytest.raises(ConfigError, match="has no tensor_paralel_size"):
        load_vision(load(settings=settings(vllm__engine_args="{tensor_paralel_size: 2}")))


def test_a_dead_engine_says_so_to_everybody(running: Running) -> None:
    """Last: the engine's own process is killed under its requests."""

    async def scenario() -> list[Any]:
        asked = [asyncio.create_task(running.engine.answer(running.form(crop(picture(LINES[n % 12]))))) for n in range(40)]
        await asyncio.sleep(0.05)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        return await asyncio.gather(*asked, return_exceptions=True)

    results = running.run(scenario())
    gone = [result for result in results if isinstance(result, EngineGone)]
    assert gone
    assert all(isinstance(result, EngineGone | Answer) for result in results)
    assert all(result.error_code is None for result in results if isinstance(result, Answer))
