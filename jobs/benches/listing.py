"""A source of a million small objects in one folder of an S3 store: is its listing streamed, and what does it cost?

`pagemill plan` as a user would start it, through the product's own S3 client, against a server on this machine that knows one
request: it lists keys that follow from their number, a thousand an answer. Peak memory is of the command, not of the server.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

import typer

from jobs.benches import tree
from jobs.benches.base import Figures

A_PAGE = 1000  # keys of an answer, as S3 gives them


def listing(
    objects: Annotated[int, typer.Option(help="in one folder")] = 1_000_000,
    fewer: Annotated[int, typer.Option(help="of a second run, to see what grows")] = 100_000,
) -> Figures:
    """Planning a folder of so many objects, all of them new; no byte of them is fetched."""
    figures = Figures("listing", {"objects": objects, "fewer": fewer})
    found = {count: _plan(count) for count in (fewer, objects)}
    for count, usage in found.items():
        figures.add(f"{count:,} objects", usage.wall_s, "s")
        figures.add("  CPU seconds", usage.cpu_s, "s")
        figures.add("  peak memory", usage.peak_mib, "MiB")
    more = 1e6 * (found[objects].peak_mib - found[fewer].peak_mib) / max(1, objects - fewer)
    figures.add("memory that a million objects more take", more, "MiB")
    return figures


def _plan(objects: int) -> tree.Usage:
    with tempfile.TemporaryDirectory(prefix="pagemill-bench-") as scratch, _serving(objects) as port:
        options = f"{{endpoint_url: 'http://127.0.0.1:{port}', key: bench, secret: bench}}"
        command = [sys.executable, "-m", "jobs.plan", "s3://archive/flat", f"{scratch}/out"]
        command += [f"--set=source.storage_options={options}", "--set=recognize.engine=echo", "--set=layout.engine=none"]
        usage = tree.run(command, every_s=0.25)
    if usage.exit_code or f"{objects} new" not in usage.output:
        raise RuntimeError(usage.output)
    return usage


class _serving:
    """A server in a process of its own, that the command's memory and CPU are not mixed with; its port."""

    def __init__(self, objects: int) -> None:
        self._command = [sys.executable, "-m", "jobs.benches.listing", str(objects)]

    def __enter__(self) -> int:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _handler(objects: int) -> type[BaseHTTPRequestHandler]:
    class Lister(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self._answer(404, b"")

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            if "list-type" not in asked:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            first = int(asked.get("continuation-token", ["0"])[0])
            count = min(int(asked.get("max-keys", [A_PAGE])[0]), A_PAGE, objects - first)
            self._answer(200, listed(first, count, objects))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Lister


def listed(first: int, count: int, objects: int, size: int = 60_000) -> bytes:
    """An answer of S3's that lists `count` keys from number `first` on."""
    keys = "".join(
        f"<Contents><Key>flat/document-{number:09d}.pdf</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for number in range(first, first + count)
    )
    last = first + count
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>" if last < objects else (
        "<IsTruncated>false</IsTruncated>"
    )  # fmt: skip
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>archive</Name><Prefix>flat/</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{A_PAGE}</MaxKeys>{more}{keys}"
        "</ListBucketResult>"
    ).encode()


def _serve(objects: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(int(objects)))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1])
