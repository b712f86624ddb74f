"""Engine `openai`: any server that speaks OpenAI's chat completions: `vllm serve`, PaddleOCR's genai server, others.

The client is aiohttp, which the S3 client brings along anyway: what is needed of the protocol is one POST whose answer is
read as it comes, and OpenAI's own library costs a pydantic object a token. Invariant: at most `server.concurrency` requests
are under way, each tried a bounded number of times; a server that stays away is `EngineGone`, with what to check.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from pipelines.config import Config, ServerConfig
from pipelines.errors import CropTimeout, EngineFailed, EngineGone, EngineUnavailable, UnusableCrop
from pipelines.recognize.base import Answer, Crop
from pipelines.recognize.loops import LoopRule, LoopWatch
from pipelines.recognize.pack import target_size
from pipelines.retry_after import retry_after_s
from pipelines.secrets import hidden

_BACKOFF_S = 1.0
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # worth another try
_POLL_S = 2.0
_CHARS_A_TOKEN = 3  # to compare a loop of characters with a rule in tokens


class OpenAiEngine:
    """A client. Made anywhere, asked in any one event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._server = config.server
        self.name = f"openai/{config.server.model or 'the served model'}"
        self._model = config.server.model
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(config.server.concurrency)
        self._opening = asyncio.Lock()

    async def answer(self, crop: Crop) -> Answer:
        """See `VisionEngine`."""
        started = time.perf_counter()
        async with self._places:
            session = await self.ready()
            try:
                body = await asyncio.to_thread(self._body, crop) if crop.encoded is None else self._body(crop)
            except UnusableCrop as error:
                return Answer("", "error", error_code=error.code, error_message=str(error))
            answer = await self._tried(session, body, crop)
        return replace(answer, seconds=time.perf_counter() - started)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.connector is not None:
            session.connector._close()  # the public one is a coroutine; its loop may be gone by now

    # -- one request -----------------------------------------------------------------------------------------------------

    async def _tried(self, session: aiohttp.ClientSession, body: Mapping[str, Any], crop: Crop) -> Answer:
        problem, asked_s, patience_s = "", 0.0, self._server.wait_s  # that of Retry-After, all tries together
        for attempt in range(self._server.retries + 1):
            if attempt:
                asked_s = min(asked_s, patience_s)
                patience_s -= asked_s
                await asyncio.sleep(max(asked_s, _BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)))
            try:
                async with asyncio.timeout(min(self._server.timeout_s, self._config.recognize.crop_deadline_s)):
                    return await self._asked(session, body, crop)
            except TimeoutError:
                return Answer("", "error", error_code=CropTimeout.code, error_message="the server did not answer in time")
            except _Refused as error:
                if error.status not in _PASSING:
                    return Answer("", "error", error_code=EngineFailed.code, error_message=str(error))
                problem, asked_s = str(error), error.after_s
            except (aiohttp.ClientError, OSError) as error:
                asked_s = 0.0
                problem = f"{type(error).__name__}: {error}"
                if not await self._healthy(session, self._server.wait_s):
                    raise EngineGone(self._absent(problem)) from error
        return Answer("", "error", error_code=EngineFailed.code, error_message=f"{self._server.retries + 1} tries: {problem}")

    async def _asked(self, session: aiohttp.ClientSession, body: Mapping[str, Any], crop: Crop) -> Answer:
        """Reads the stream as it comes; a loop ends the request by closing the connection."""
        rule = LoopRule.of(self._config.recognize, crop.task)
        watch = LoopWatch(LoopRule(rule.longest * _CHARS_A_TOKEN, rule.repeats)) if rule is not None else None
        text, reason, pieces = "", "", 0
        usage: dict[str, Any] = {}
        async with session.post(f"{self._server.url.rstrip('/')}/chat/completions", json=body) as response:
            if response.status != 200:
                after_s = retry_after_s(response.headers.get("Retry-After"), time.time())
                raise _Refused(response.status, self._words(await response.text()), after_s)
            async for line in response.content:
                if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                    continue
                event = json.loads(line[5:])
                if "error" in event:
                    raise _Refused(int(event["error"].get("code") or 500), self._words(str(event["error"].get("message"))))
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    piece = choice.get("delta", {}).get("content") or ""
                    text, pieces = text + piece, pieces + bool(piece)
                    reason = choice.get("finish_reason") or reason
                    if watch is not None and watch.feed(piece):
                        return self._answer(crop, text, "repetition", usage, pieces)
        return self._answer(crop, text, reason or "stop", usage, pieces)

    def _answer(self, crop: Crop, text: str, reason: str, usage: Mapping[str, Any], pieces: int) -> Answer:
        tokens = int(usage.get("completion_tokens") or pieces)  # a server without usage: one piece is about a token
        if reason not in ("stop", "length", "repetition"):
            message = f"the server ended it with {reason!r}"
            return Answer(text, "error", tokens=tokens, error_code=EngineFailed.code, error_message=message)
        saved = max(0, crop.sampling.max_tokens - tokens) if reason == "repetition" else 0
        return Answer(text, reason, int(usage.get("prompt_tokens") or 0), tokens, saved)

    def _words(self, said: str) -> str:
        """What a server says of an error; some repeat the key that they were given."""
        return hidden(said, os.environ.get(self._server.api_key_env))[:500]

    def _body(self, crop: Crop) -> dict[str, Any]:
        picture = crop.encoded or encoded(crop, self._server)
        kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {
                    "role": "user",
                    "content": [  # the picture before the text, as the model was trained
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"},
                        },
                        {"type": "text", "text": crop.prompt},
                    ],
                }
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": crop.sampling.temperature,
            "max_completion_tokens": crop.sampling.max_tokens,
            "skip_special_tokens": crop.sampling.skip_special_tokens,  # vLLM's own; others ignore what they do not know
        }
        if crop.sampling.top_p is not None:
            body["top_p"] = crop.sampling.top_p
        if crop.sampling.repetition_penalty is not None:
            body["repetition_penalty"] = crop.sampling.repetition_penalty
        if crop.sampling.temperature > 0:
            body["seed"] = 1
        return body

    # -- the server --------------------------------------------------------------------------------------------------------

    async def ready(self) -> aiohttp.ClientSession:
        """The session, once the server has answered."""
        async with self._opening:
            if self._session is None:
                key = os.environ.get(self._server.api_key_env, "")
                session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=self._server.concurrency + 4),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                    headers={"Authorization": f"Bearer {key}"} if key else {},
                    read_bufsize=1 << 20,
                )
                if not await self._healthy(session, self._server.wait_s):
                    await session.close()
                    raise EngineGone(self._absent("no answer"))
                try:
                    self._model = self._model or await self._only_model(session)
                except BaseException:
                    await session.close()
                    raise
                self._session = session
        return self._session

    async def _healthy(self, session: aiohttp.ClientSession, wait_s: float) -> bool:
        """Waits for the server: loading a model takes minutes, in which nothing listens, or /health says 503."""
        until = time.monotonic() + wait_s
        while True:
            try:
                async with asyncio.timeout(10), session.get(_health_url(self._server.url)) as response:
                    if response.status == 200 or response.status == 404:  # 404: a server without /health is there
                        return True
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(min(_POLL_S, max(0.05, until - time.monotonic())))

    async def _only_model(self, session: aiohttp.ClientSession) -> str:
        async with asyncio.timeout(30), session.get(f"{self._server.url.rstrip('/')}/models") as response:
            listed = [str(entry["id"]) for entry in (await response.json()).get("data", [])] if response.status == 200 else []
        if len(listed) != 1:
            raise EngineGone(f"{self._server.url} serves {listed or 'no model that it names'}: --set server.model=NAME")
        return listed[0]

    def _absent(self, problem: str) -> str:
        return absent(self._server.url, self._server.wait_s, problem)


class _Refused(Exception):
    def __init__(self, status: int, words: str, after_s: float = 0.0) -> None:
        super().__init__(f"HTTP {status}: {words}")
        self.status, self.after_s = status, after_s


def absent(url: str, waited_s: float, problem: str) -> str:
    """What to check when nobody answers."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    return (
        f"no server answers at host {host}, port {port} (server.url={url}; waited {waited_s:g} s: {problem}). Is it running, and "
        f"done loading its model (curl {_health_url(url)})? From inside a container 'localhost' is the container itself: use "
        f"host.docker.internal or the host's address. Is port {port} open in the firewall, and does the server listen on "
        "0.0.0.0 rather than on 127.0.0.1? Still loading: raise --set server.wait_s=SECONDS"
    )


def _health_url(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/health"


def wait_for_server(config: Config) -> None:
    """For the driver, before it starts anything else.

    Raises:
        EngineUnavailable
    """

    async def wait() -> None:
        engine = OpenAiEngine(config)
        try:
            session = await engine.ready()
            await session.close()
        except EngineGone as error:
            raise EngineUnavailable(str(error)) from None

    asyncio.run(wait())


def encoded(crop: Crop, config: ServerConfig) -> bytes:
    """A crop as a PNG or JPEG file, at the size at which the model sees it.

    vLLM's servers refuse a pixel budget in a request unless told to trust it, and others know none: scaled here, by the model's
    own rule, the picture is left as it is by a server whose budget is not narrower.

    Raises:
        UnusableCrop: it has no pixels, or is more than 200 times as long as it is wide.
    """
    from PIL import Image

    height, width = target_size(crop.pixels.shape[0], crop.pixels.shape[1], crop.min_pixels, crop.max_pixels)
    picture = Image.fromarray(crop.pixels).resize((width, height), Image.Resampling.BICUBIC)
    sink = io.BytesIO()
    if config.image == "png":
        picture.save(sink, "PNG", compress_level=1)
    else:
        picture.save(sink, "JPEG", quality=config.jpeg_quality)
    return sink.getvalue()
