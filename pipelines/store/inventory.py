"""What is stored below an OUTPUT, with sizes and times, as its store lists it: for compaction and garbage collection.

Invariant: times are the store's own, so a driver's wrong clock makes nothing look old; a listing is streamed and complete.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.errors import StoreUnavailable
from pipelines.store.objects import ObjectStore

_BATCH = 10_000


@dataclass(slots=True, frozen=True)
class Stored:
    """An object of an output."""

    key: str
    size: int
    modified: float  # by the store's clock, seconds since the epoch


class Inventory:
    """Objects of one output, listed and looked at."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._fs = store.filesystem  # None: a local folder
        self._is_s3 = store.root.startswith(("s3://", "s3a://"))

    def below(self, prefix: str) -> Iterator[Stored]:
        """Everything below a folder, in no order; what a killed process left half-written too."""
        if self._fs is None:
            return self._local(prefix)
        return self._s3(prefix) if self._is_s3 else self._any(prefix)

    def modified(self, key: str) -> float | None:
        """When an object was last put; None when there is none."""
        path = self._store.child_uri(key)
        try:
            if self._fs is None:
                return self._store.retrying("head", key, lambda: os.stat(path).st_mtime)
            return _seconds(self._store.retrying("head", key, lambda: self._fs.info(path, refresh=True)))
        except FileNotFoundError:
            return None

    def now(self) -> float:
        """The store's clock.

        Raises:
            StoreUnavailable: it does not tell.
        """
        key = f".pagemill-probe-{secrets.token_hex(8)}"
        self._store.put(key, b"now")
        now = self.modified(key)
        self._store.delete(key)
        if now is None:
            raise StoreUnavailable(f"{self._store.root} does not say when an object was put that it took")
        return now

    def uploads(self) -> Iterator[Stored]:
        """Multipart uploads that were begun and not ended (S3); `key` is `KEY?UPLOAD_ID`."""
        if not self._is_s3:
            return
        bucket, prefix = self._place("")
        answer = self._call("list", "list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        for upload in answer.get("Uploads", ()):
            yield Stored(f"{upload['Key'][len(prefix) :]}?{upload['UploadId']}", 0, upload["Initiated"].timestamp())

    def abort_upload(self, key: str) -> None:
        name, _, upload = key.rpartition("?")
        bucket, path = self._place(name)
        self._call("delete", "abort_multipart_upload", Bucket=bucket, Key=path, UploadId=upload)

    def _local(self, prefix: str) -> Iterator[Stored]:
        self._store.count("list")
        for directory, _, names in os.walk(self._store.child_uri(prefix)):
            for name in names:
                path = os.path.join(directory, name)
                try:
                    info = os.stat(path)
                except FileNotFoundError:
                    continue  # removed meanwhile
                yield Stored(os.path.relpath(path, self._store.root).replace(os.sep, "/"), info.st_size, info.st_mtime)

    def _s3(self, prefix: str) -> Iterator[Stored]:
        """A thousand keys a request, so that millions of parts are never in memory together."""
        bucket, start = self._place("")
        more: dict[str, str] = {}
        while True:
            answer = self._call("list", "list_objects_v2", Bucket=bucket, Prefix=f"{start}{prefix}/", **more)
            for entry in answer.get("Contents", ()):
                yield Stored(entry["Key"][len(start) :], entry["Size"], entry["LastModified"].timestamp())
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _any(self, prefix: str) -> Iterator[Stored]:
        root = self._store.child_uri("").partition("://")[2]

        def listed() -> dict[str, Any]:
            self._fs.invalidate_cache()
            return dict(self._fs.find(self._store.child_uri(prefix), detail=True))

        for path, info in self._store.retrying("list", prefix, listed).items():
            yield Stored(path.lstrip("/").removeprefix(root.lstrip("/")), int(info["size"] or 0), _seconds(info))

    def _place(self, key: str) -> tuple[str, str]:
        """(bucket, key in it)"""
        bucket, _, path = self._store.child_uri(key).partition("://")[2].partition("/")
        return bucket, path

    def _call(self, kind: str, verb: str, **arguments: Any) -> Any:
        return self._store.retrying(kind, verb, lambda: self._fs.call_s3(verb, **arguments))


def load(con: duckdb.DuckDBPyConnection, objects: Iterable[Stored]) -> None:
    """Creates the table `found` (key, size, modified) of these objects, some thousand in memory at a time."""
    con.execute("CREATE OR REPLACE TABLE found (key VARCHAR, size BIGINT, modified DOUBLE)")
    remaining = iter(objects)
    while some := list(islice(remaining, _BATCH)):
        batch = pa.table({name: [getattr(stored, name) for stored in some] for name in ("key", "size", "modified")})
        con.register("some_found", batch)
        con.execute("INSERT INTO found SELECT key, size, modified FROM some_found")
        con.unregister("some_found")


def _seconds(info: Mapping[str, Any]) -> float:
    """What a file system calls the time of the last change, as seconds; unknown: now, which is never old."""
    at = info.get("LastModified") or info.get("mtime") or info.get("created") or info.get("updated")
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    if isinstance(at, datetime):
        return at.timestamp()
    return float(at) if at else float("inf")
