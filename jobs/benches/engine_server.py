"""The server route of the bench `engine`: `vllm serve` with the official settings, asked over HTTP as the official client asks.

4 API servers, 131,072 batched tokens, a context of 16,384, JPEG of quality 75 in base64. Invariant: an answer of another
length than asked for is an error, as with the other engines.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from jobs.benches.workloads import BUDGET

if TYPE_CHECKING:
    import aiohttp

    from jobs.benches.engine_worker import Spec
    from jobs.benches.workloads import Job

_QUALITY = 75
_STARTS_IN_S = 380
_OFFICIAL = {"api-server-count": 4, "max-num-batched-tokens": 131_072, "max-model-len": 16_384}


def jpeg_url(drawn: Any) -> str:
    """A picture as a data URL."""
    sink = io.BytesIO()
    drawn.save(sink, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()


class Server:
    """`vllm serve` below this process; `seqs` requests at once."""

    def __init__(self, spec: Spec) -> None:
        self._model = spec.model
        self._session: aiohttp.ClientSession | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        options: dict[str, Any] = _OFFICIAL | {
            "port": port, "load-format": "dummy", "dtype": "bfloat16", "mm-processor-cache-gb": 0,
            "mm-processor-kwargs": json.dumps({"min_pixels": BUDGET[0], "max_pixels": BUDGET[1]}),
            "limit-mm-per-prompt": json.dumps({"image": 1}), "gpu-memory-utilization": 0.05,
            "kv-cache-memory-bytes": int(max(spec.kv_mib, 24) * spec.seqs * (1 << 20)),
        }  # fmt: skip
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", spec.model, "--no-enable-prefix-caching"]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen([*command, *(["--enforce-eager"] if spec.eager else [])], stdout=subprocess.DEVNULL)
        self._wait()
        self._places = asyncio.Semaphore(spec.seqs)
        self.under_way = 0

    def _wait(self) -> None:
        until = time.monotonic() + _STARTS_IN_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=2).close()
            except OSError:
                time.sleep(1)
            else:
                return
        self.close()
        raise RuntimeError(f"vllm serve did not answer within {_STARTS_IN_S} s, or ended (exit code {self._process.poll()})")

    def admit(self, places: int, wave: int) -> None:  # noqa: ARG002 a server has no waves
        self._places = asyncio.Semaphore(places)

    async def answer(self, job: Job, picture_of: Any) -> None:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
            )
        content = [{"type": "image_url", "image_url": {"url": picture_of}}, {"type": "text", "text": "OCR:"}]
        body = {
            "model": self._model, "messages": [{"role": "user", "content": content}], "temperature": 0.0,
            "max_tokens": job.tokens, "ignore_eos": True,
        }  # fmt: skip
        async with self._places:
            self.under_way += 1
            async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
                said = await response.json()
            self.under_way -= 1
        came = said["usage"]["completion_tokens"] if response.status == 200 else said
        if came != job.tokens:
            raise RuntimeError(f"{came} tokens came, {job.tokens} were asked for")

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
