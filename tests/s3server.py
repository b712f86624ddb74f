"""An S3 API server in a process of its own, with a proxy in front that can be told to misbehave.

python -m tests.s3server        prints the two ports, then serves until its standard input ends
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


_TRICKLE_S = 0.05
_TOGETHER_S = 30.0  # for requests that never come together
_HANG_S = 6.0  # longer than the time-out of the tests that make a request hang


@dataclass
class Faults:
    """What the proxy does to the requests that match, each rule at most `times` times."""

    rules: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    dice: random.Random = field(default_factory=random.Random)
    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))  # of the requests that wait for each other
    under_way: int = 0
    most_under_way: int = 0  # since somebody set it

    def pick(self, method: str, path: str) -> str | None:
        with self.lock:
            self.seen.append(f"{method} {path}")
            for rule in self.rules:
                fits = rule["method"] in (method, "*") and rule["part"] in path
                if rule["times"] > 0 and fits and self.dice.random() < rule["chance"]:
                    rule["skip"] = rule.get("skip", 0) - 1
                    if rule["skip"] < 0:
                        rule["times"] -= 1
                        return str(rule["kind"])
        return None

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            yield
        finally:
            with self.lock:
                self.under_way -= 1


class S3:
    """The server as tests see it. `faulty` goes through the proxy, `endpoint` does not."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.faults = Faults()
        self._names = itertools.count()
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(port, self.faults))
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self.faulty = f"http://127.0.0.1:{self._proxy.server_address[1]}"

    def bucket(self) -> str:
        """A new bucket's URI."""
        name = f"bucket-{os.getpid()}-{next(self._names)}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT", data=b"")
        urllib.request.urlopen(request).close()
        return f"s3://{name}"

    def fault(self, kind: str, method: str, part: str = "", times: int = 1, skip: int = 0, chance: float = 1) -> None:
        """
        Args:
            kind: slowdown, conflict, forbidden; reset, hang, torn (half of what is sent is taken, then reset); truncated, slow
                (whole, in pieces), drip (a byte at a time, for minutes); lost_answer, late_answer (done); together (waits for
                as many as `faults.together` wants).
            method: of HTTP, or * for all.
            skip: so many requests pass first. chance: of each that matches.
        """
        self.faults.rules.append({"kind": kind, "method": method, "part": part, "times": times, "skip": skip, "chance": chance})

    def options(self, faulty: bool = False) -> dict[str, Any]:
        return {"endpoint_url": self.faulty if faulty else self.endpoint, "key": "test", "secret": "test"}

    def close(self) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()


@contextlib.contextmanager
def serving() -> Iterator[S3]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.s3server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert process.stdout is not None
    s3 = S3(int(json.loads(process.stdout.readline())["port"]))
    try:
        yield s3
    finally:
        s3.close()
        process.kill()
        process.communicate()


def _handler(port: int, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two packets; the second would wait 40 ms for the first one's receipt

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def _serve(self) -> None:
            with faults.counted():
                self._counted()

        def _counted(self) -> None:
            kind, length = faults.pick(self.command, self.path), int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length // 2 if kind == "torn" else length)
            if kind == "slowdown":
                self._answer(503, {"Content-Type": "application/xml"}, b"<Error><Code>SlowDown</Code></Error>")
                return
            if kind == "conflict":
                error = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
                self._answer(409, {"Content-Type": "application/xml"}, error)
                return
            if kind == "forbidden":
                error = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
                self._answer(403, {"Content-Type": "application/xml"}, error)
                return
            if kind in ("reset", "torn"):
                self._drop()
                return
            if kind == "hang":
                time.sleep(_HANG_S)
                self._drop()
                return
            if kind == "together":
                with contextlib.suppress(threading.BrokenBarrierError):  # it is seen in the barrier
                    faults.together.wait(_TOGETHER_S)
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            if kind in ("lost_answer", "late_answer"):
                time.sleep(_HANG_S if kind == "late_answer" else 0)
                self._drop()
                return
            headers = {
                k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding", "date", "server")
            }
            if kind == "truncated":
                self._answer(answer.status, headers | {"Content-Length": str(len(data))}, data[: len(data) // 2])
                self._drop()
                return
            if kind in ("slow", "drip"):
                self._trickle(answer.status, headers, data, len(data) // 20 + 1 if kind == "slow" else 1)
                return
            self._answer(answer.status, headers, data)

        def _trickle(self, status: int, headers: dict[str, str], data: bytes, size: int) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked does not wait for ever
                for at in range(0, len(data), size):
                    self.wfile.write(data[at : at + size])
                    time.sleep(_TRICKLE_S)

        def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            lengths = [name for name in headers if name.lower() == "content-length"]
            for name, value in headers.items():
                self.send_header(name, value)
            if not lengths:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _drop(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    return Proxy


def main() -> None:
    os.environ.update(KEYS)
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    # moto looks whether the object is there, and then stores it: two creations at once can both succeed. S3's are atomic
    one_at_a_time, put = threading.Lock(), S3Response._key_response_put

    def atomic(response: Any, *arguments: Any) -> Any:
        with one_at_a_time:
            return put(response, *arguments)

    S3Response._key_response_put = atomic  # type: ignore[method-assign]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(json.dumps({"port": server.get_host_and_port()[1]}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
