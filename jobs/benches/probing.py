"""How many new documents a second a driver plans from an object store that takes its time, and what of its CPU they cost.

The product's own discovery (listing, comparing, fetching, hashing, opening, planning) through its own S3 client, against a
server on this machine that answers each request after a given time. Nothing is read, and nothing is waited for but the store.
The server is a process of its own; on a machine of few cores it takes its share of them.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import psutil
import typer

from jobs.benches import tree
from jobs.benches.archives import plain_pdfs
from jobs.benches.base import Figures
from jobs.benches.listing import A_PAGE, listed


def probing(
    documents: Annotated[int, typer.Option(help="new PDFs in one folder")] = 3000,
    pages: Annotated[int, typer.Option(help="of each")] = 1,
    kib: Annotated[int, typer.Option(help="of each, at least")] = 64,
    latency_ms: Annotated[float, typer.Option(help="of each request")] = 50,
    settings: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
) -> Figures:
    """Planning a folder of new documents, each of which is fetched and opened."""
    figures = Figures(
        "probing", {"documents": documents, "pages": pages, "KiB": kib, "ms a request": latency_ms, "settings": settings or []}
    )
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        with _Store(documents, pages, kib, latency_ms) as store:
            options = f"{{endpoint_url: 'http://127.0.0.1:{store.port}', key: bench, secret: bench}}"
            command = [sys.executable, "-m", "jobs.benches.probing", "plan", f"{scratch}/out"]
            usage = tree.run(
                [*command, f"source.storage_options={options}", f"source.cache_dir={scratch}/cache", *(settings or [])],
                every_s=0.25,
            )
        if usage.exit_code:
            raise RuntimeError(usage.output)
        seen: dict[str, Any] = json.loads(usage.output.splitlines()[-1])
    if seen["planned"] != documents:
        raise RuntimeError(usage.output)
    figures.add("planned, from the first to the last", (documents - 1) / seen["wall_s"], "documents/s")
    figures.add("CPU of the driver", 1000 * seen["cpu_s"] / documents, "ms/document")
    for name, spent in seen["threads"].items():
        figures.add(f"  thread {name}", 1000 * spent / documents, "ms/document")
    figures.add("CPU of the children that open", 1000 * seen["children_s"] / documents, "ms/document")
    figures.add("CPU of the server", 1000 * store.cpu_s / documents, "ms/document")
    figures.add("peak memory, with the children", usage.peak_mib, "MiB")
    figures.add("requests: GET", seen["requests"].get("source_get", 0))
    return figures


class _Store:
    """The server, in a process of its own; what CPU it took, after its end."""

    def __init__(self, *numbers: float) -> None:
        self._command = [sys.executable, "-m", "jobs.benches.probing", "serve", *map(str, numbers)]

    def __enter__(self) -> _Store:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._before = self._spent()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = self._spent() - self._before
        self._process.kill()
        self._process.communicate()

    def _spent(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system


# -- the driver, in a process of its own ------------------------------------------------------------------------------


def _plan(output: str, *settings: str) -> None:
    from pipelines.config import load
    from pipelines.fingerprint import fingerprint
    from pipelines.observe.summary import Summary
    from pipelines.output import choose_lane, new_run_id, open_output
    from pipelines.recognize.engines import identify
    from pipelines.source.discovery import Discovery
    from pipelines.stages import Site
    from pipelines.store.ledger import Ledger

    config = load(settings=["recognize.engine=echo", "layout.engine=none", *settings])
    site = Site(config, output, new_run_id(), fingerprint(config, {}), identify(config))
    store = open_output(output, config.store)
    ledger, summary = Ledger(store, choose_lane(store, None, None)), Summary(site.run_id, "archive", output, site.fingerprint, {})
    found = Discovery(site, "s3://archive/flat", ledger, summary)()
    planned = int(bool(next(found).spans))
    started, cpu, names = time.perf_counter(), time.process_time(), dict[int, str]()
    last, stop = started, threading.Event()
    before = after = _by_thread(names)
    threading.Thread(target=_name_threads, args=(names, stop), name="the bench's own", daemon=True).start()
    for one in found:
        planned += bool(one.spans)
        last = time.perf_counter()
        if planned % 250 == 0:  # some of the threads end with the generator
            after = _by_thread(names)
    stop.set()
    threads = {name: spent - before.get(name, 0.0) for name, spent in after.items()}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {
        "planned": planned, "wall_s": last - started, "cpu_s": time.process_time() - cpu,
        "threads": {name: spent for name, spent in sorted(threads.items(), key=lambda item: -item[1]) if spent > 0.05},
        "children_s": children.ru_utime + children.ru_stime, "requests": dict(summary.requests),
    }  # fmt: skip
    ledger.close()
    print(json.dumps(told))


def _name_threads(names: dict[int, str], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        _by_thread(names)


def _by_thread(names: dict[int, str]) -> dict[str, float]:
    names.update({thread.native_id or 0: thread.name.split("_")[0] for thread in threading.enumerate()})
    found: dict[str, float] = {}
    for thread in psutil.Process().threads():
        name = names.get(thread.id, "native")
        found[name] = found.get(name, 0.0) + thread.user_time + thread.system_time
    return found


# -- the store --------------------------------------------------------------------------------------------------------


async def _serve(documents: int, pages: int, kib: int, latency_ms: float) -> None:
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch:
        plain_pdfs(Path(scratch), 1, pages)
        page = next(Path(scratch).iterdir()).read_bytes()
    body = page + b"\n%" + b"x" * max(0, 1024 * kib - len(page))
    size = len(_document(body, 0))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            method, target = head.split(b" ", 2)[:2]
            await asyncio.sleep(latency_ms / 1000)
            status, content = _answer(method, target.decode(), documents, body, size)
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(content)))
            writer.write(content if method != b"HEAD" else b"")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Of the next request, none of which has a body; empty at the end."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _answer(method: bytes, target: str, documents: int, body: bytes, size: int) -> tuple[bytes, bytes]:
    parts = urlsplit(target)
    asked = parse_qs(parts.query)
    if method == b"GET" and "list-type" in asked:
        first = int(asked.get("continuation-token", ["0"])[0])
        count = min(int(asked.get("max-keys", [A_PAGE])[0]), A_PAGE, documents - first)
        return b"200 OK", listed(first, count, documents, size)
    if method == b"GET" and parts.path.endswith(".pdf"):
        return b"200 OK", _document(body, int(parts.path[-13:-4]))
    return b"404 Not Found", b"" if method == b"HEAD" else b"<Error><Code>NoSuchKey</Code></Error>"


def _document(body: bytes, number: int) -> bytes:
    return body + b"\n%% copy %09d\n" % number  # readers of PDF look past it


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        _plan(*sys.argv[2:])
    else:
        asyncio.run(_serve(*(int(float(number)) for number in sys.argv[2:])))
