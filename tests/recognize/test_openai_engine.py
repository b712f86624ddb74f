"""The client of model servers, against a server that streams, stumbles, refuses, loops and stays away."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from pipelines.config import load
from pipelines.errors import ConfigError, EngineGone, EngineUnavailable
from pipelines.recognize.base import Answer, Crop, Sampling
from pipelines.recognize.engines import form_of, identify, load_vision, wait_until_ready
from pipelines.recognize.pack import target_size
from tests.conftest import ROOT


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Server:
    """Answers with what its `script` says for the n-th request: pieces of text, or an HTTP status."""

    script: Callable[[int], list[str] | int]
    reason: str = "stop"
    health: list[int] = field(default_factory=list)  # statuses of the first calls of /health; then 200
    usage: bool = True
    piece_s: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    cut: int = 0  # streams that the client closed
    retry_after: str = ""  # with a status
    asked_at: list[float] = field(default_factory=list)  # time.monotonic()
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=self.health.pop(0) if self.health else 200)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "PaddleOCR-VL"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        number = len(self.asked)
        self.asked.append(await request.json())
        self.asked_at.append(time.monotonic())
        said = self.script(number)
        if isinstance(said, int):
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.json_response({"error": {"message": "not now"}}, status=said, headers=headers)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for piece in said:
                await self._event(response, {"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
                await asyncio.sleep(self.piece_s)
            await self._event(response, {"choices": [{"delta": {}, "finish_reason": self.reason}]})
            if self.usage:
                await self._event(response, {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": len(said) + 1}})
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.cut += 1
            raise
        finally:
            self.at_once -= 1
        return response

    async def _event(self, response: web.StreamResponse, event: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def crop(max_tokens: int = 4096, temperature: float = 0.0) -> Crop:
    pixels = np.full((40, 120, 3), 255, np.uint8)
    pixels[10:20, 10:90] = (200, 30, 60)
    return Crop((0,), pixels, "ocr", "OCR:", 112896, 1003520, Sampling(max_tokens=max_tokens, temperature=temperature))


def asking(server: Server, count: int = 1, one: Crop | None = None, **settings: object) -> list[Answer | BaseException]:
    async def scenario() -> list[Answer | BaseException]:
        runner = await server.start()
        named = {"recognize.engine": "openai", "server.url": server.url, "server.wait_s": 5} | {
            key.replace("__", "."): value for key, value in settings.items()
        }
        config = load(settings=[f"{key}={value}" for key, value in named.items()])
        engine, form = load_vision(config), form_of(config, identify(config))
        try:
            return await asyncio.gather(*(engine.answer(form(one or crop())) for _ in range(count)), return_exceptions=True)
        finally:
            engine.close()
            await runner.cleanup()

    return asyncio.run(scenario())


def answered(found: list[Answer | BaseException]) -> list[Answer]:
    assert all(isinstance(answer, Answer) for answer in found), found
    return [answer for answer in found if isinstance(answer, Answer)]


def test_what_is_asked_and_what_comes_back() -> None:
    server = Server(lambda _: ["Hel", "lo ", "wörld"])
    (answer,) = answered(asking(server, server__image="png"))
    assert (answer.text, answer.finish_reason, answer.prompt_tokens, answer.tokens) == ("Hello wörld", "stop", 30, 4)
    (body,) = server.asked
    assert (body["model"], body["stream"], body["temperature"], body["max_completion_tokens"]) == (
        "PaddleOCR-VL",
        True,
        0.0,
        4096,
    )
    assert "mm_processor_kwargs" not in body  # vLLM 0.32 answers 400 to it, unless it was started to trust its clients
    assert body["skip_special_tokens"] is True
    picture, question = body["messages"][0]["content"]  # the picture first, as the model was trained
    assert question == {"type": "text", "text": "OCR:"}
    kind, _, data = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    high, wide = target_size(40, 120, 112896, 1003520)  # the budget is kept by sending what the model would make of the crop
    assert np.array_equal(sent, np.asarray(Image.fromarray(crop().pixels).resize((wide, high), Image.Resampling.BICUBIC)))
    assert target_size(high, wide, 112896, 1003520) == (high, wide)


def test_jpeg() -> None:
    server = Server(lambda _: ["x"])
    answered(asking(server, server__image="jpeg"))
    url = server.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,/9j/")


def test_at_most_so_many_at_once() -> None:
    server = Server(lambda n: ["some ", "text"], piece_s=0.02)
    found = answered(asking(server, count=30, server__concurrency=4))
    assert [answer.text for answer in found] == ["some text"] * 30
    assert server.most_at_once == 4


def test_passing_failures_are_tried_again_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.recognize.openai_engine._BACKOFF_S", 0.01)
    server = Server(lambda n: 503 if n < 2 else ["at last"])
    (answer,) = answered(asking(server, server__retries=3))
    assert answer.text == "at last"
    assert len(server.asked) == 3
    server = Server(lambda n: 503)
    (answer,) = answered(asking(server, server__retries=2))
    assert (answer.error_code, len(server.asked)) == ("ENGINE_FAILED", 3)
    assert "503" in answer.error_message
    server = Server(lambda n: 429 if n < 1 else ["at last"], retry_after="1")
    (answer,) = answered(asking(server, server__retries=1))
    assert answer.text == "at last"
    assert server.asked_at[1] - server.asked_at[0] >= 1.0  # not before it wants to be asked
    server = Server(lambda n: 429 if n < 1 else ["at last"], retry_after="864000")
    (answer,) = answered(asking(server, server__retries=1, server__wait_s=0.5))
    assert answer.text == "at last"  # ten days are more than one waits
    server = Server(lambda n: 429, retry_after="864000")
    (answer,) = answered(asking(server, server__retries=3, server__wait_s=2))
    assert (answer.error_code, len(server.asked)) == ("ENGINE_FAILED", 4)
    assert 2.0 <= server.asked_at[-1] - server.asked_at[0] < 6.0  # so long in all; with each try it would be 6 at least
    server = Server(lambda n: 400)
    (answer,) = answered(asking(server, server__retries=2))
    assert (answer.error_code, len(server.asked)) == ("ENGINE_FAILED", 1)
    assert "not now" in answer.error_message


def test_a_loop_is_cut_by_hanging_up() -> None:
    server = Server(lambda _: ["so on and "] * 2000, piece_s=0.001)
    (answer,) = answered(asking(server))
    assert answer.finish_reason == "repetition"
    assert answer.tokens < 100
    assert answer.tokens_saved == 4096 - answer.tokens
    assert server.cut == 1


def test_length_empty_and_a_server_without_usage() -> None:
    (answer,) = answered(asking(Server(lambda _: ["cut"], reason="length")))
    assert answer.finish_reason == "length"
    (answer,) = answered(asking(Server(lambda _: [])))
    assert (answer.text, answer.finish_reason) == ("", "stop")
    (answer,) = answered(asking(Server(lambda _: ["a", "b", "c"], usage=False)))
    assert answer.tokens == 3
    (answer,) = answered(asking(Server(lambda _: ["a"], reason="content_filter")))
    assert answer.error_code == "ENGINE_FAILED"


def test_past_its_deadline() -> None:
    server = Server(lambda _: ["slow "] * 50, piece_s=0.2)
    (answer,) = answered(asking(server, recognize__crop_deadline_s=0.3))
    assert answer.error_code == "CROP_TIMEOUT"
    assert server.cut == 1


def test_waits_while_the_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.recognize.openai_engine._POLL_S", 0.05)
    server = Server(lambda _: ["ready"], health=[503, 503, 503])
    (answer,) = answered(asking(server))
    assert answer.text == "ready"
    assert not server.health


def test_nobody_answers() -> None:
    port = free_port()
    config = load(settings=["recognize.engine=openai", f"server.url=http://127.0.0.1:{port}/v1", "server.wait_s=0.2"])
    with pytest.raises(EngineUnavailable) as refused:
        wait_until_ready(config)
    words = str(refused.value)
    for part in (
        "127.0.0.1",
        f"port {port}",
        "host.docker.internal",
        "firewall",
        f"curl http://127.0.0.1:{port}/health",
        "wait_s",
    ):
        assert part in words


def test_a_server_that_goes_away_is_an_engine_that_is_gone() -> None:
    server = Server(lambda _: ["first"])

    async def scenario() -> None:
        runner = await server.start()
        config = load(settings=["recognize.engine=openai", f"server.url={server.url}", "server.wait_s=0.3"])
        engine = load_vision(config)
        assert (await engine.answer(crop())).text == "first"
        await runner.cleanup()
        with pytest.raises(EngineGone, match=f"port {server.port}"):
            await engine.answer(crop())
        engine.close()

    asyncio.run(scenario())


def test_a_wrong_address_is_a_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match=r"server\.url"):
        load(settings=["recognize.engine=openai", "server.url=localhost:8000"])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_real_vllm_server(tmp_path: Path) -> None:
    """`vllm serve` with the tests' model, asked as `recognize.engine: openai` asks."""
    pytest.importorskip("vllm", reason="vLLM is not in this environment: `make .venv-vllm`")
    from tests.recognize.test_vllm_engine import LINES, picture
    from tests.vllm.settings import FIXTURE

    port = free_port()
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(FIXTURE), "--port", str(port),
            "--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager",
            "--kv-cache-memory-bytes", str(1 << 28), "--served-model-name", "tiny",
        ],
        cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        config = load(settings=["recognize.engine=openai", f"server.url=http://127.0.0.1:{port}/v1", "server.wait_s=600"])
        started = time.monotonic()
        wait_until_ready(config)
        assert time.monotonic() - started > 1, "it was not there at once: the wait was one"

        async def scenario() -> list[Answer]:
            engine, form = load_vision(config), form_of(config, identify(config))
            crops = [Crop((0,), picture(text), "ocr", "OCR:", 784, 200704, Sampling(max_tokens=256)) for text in LINES]
            answers = await asyncio.gather(*(engine.answer(form(one)) for one in crops))
            engine.close()
            return list(answers)

        answers = asyncio.run(scenario())
        assert [answer.text for answer in answers] == LINES
        assert all(answer.finish_reason == "stop" and answer.tokens > 1 for answer in answers)
    finally:
        server.terminate()
        server.wait(60)
        log.close()
