"""The source's side of a remote file system: listing it a request at a time, looking at one object, fetching one whole.

Invariant: every request is counted and retried by itself; an object is fetched by one GET; a folder is never held in memory.
"""

from __future__ import annotations

import errno
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.errors import SourceUnreachable, SourceUnreadable, StoreUnavailable
from pipelines.store.filesystem import Counting, in_one_piece, open_filesystem, patience


@dataclass(slots=True, frozen=True)
class ObjectInfo:
    """One listed object; a local one has times and inode, a remote one an etag."""

    uri: str
    size: int | None
    etag: str | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None
    # what a manifest says of it
    pages: str = ""
    options: str = ""
    secret: int = 0


@dataclass(slots=True, frozen=True)
class Page:
    """Some entries of a folder, as one request answered."""

    folders: list[str]  # paths that end with a slash
    objects: list[ObjectInfo]


class RemoteSource(Counting):
    """
    Args:
        uri: of an object, a folder or a bucket; `path` is the part behind the scheme.
        options: for fsspec. retries: of one request. timeout_s: of one request (S3).
        counting: where requests are counted; None: here.
    """

    def __init__(
        self, uri: str, options: Mapping[str, Any] | None = None, retries: int = 6, timeout_s: float = 60,
        counting: Counting | None = None,
    ) -> None:  # fmt: skip
        super().__init__(retries, counting)
        self._fs, self.path = open_filesystem(uri, options or {}, timeout_s)
        self._timeout_s = timeout_s
        self.scheme = uri.partition("://")[0]
        self._is_s3 = self.scheme in ("s3", "s3a")

    def pages(self, folder: str) -> Iterator[Page]:
        """What a folder holds directly; nothing for one that is not there.

        Args:
            folder: a path; "" or one that ends with a slash.

        Raises:
            SourceUnreachable: after every retry of the request that failed.
        """
        try:
            yield from self._s3_pages(folder) if self._is_s3 else self._plain_page(folder)
        except FileNotFoundError:
            return
        except (OSError, StoreUnavailable) as error:
            raise SourceUnreachable(f"{self.scheme}://{folder}: {error}") from error

    def _s3_pages(self, folder: str) -> Iterator[Page]:
        bucket, _, prefix = folder.partition("/")
        more: dict[str, str] = {}
        while True:
            answer = self.retrying(
                "list",
                folder,
                lambda more=dict(more): self._fs.call_s3(  # type: ignore[misc]
                    "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more
                ),
            )
            folders = [f"{bucket}/{entry['Prefix']}" for entry in answer.get("CommonPrefixes", ())]
            objects = [
                ObjectInfo(f"{self.scheme}://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
                for entry in answer.get("Contents", ())
            ]
            yield Page(folders, objects)
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _plain_page(self, folder: str) -> Iterator[Page]:
        entries = self.retrying("list", folder, lambda: self._ls(folder.rstrip("/")))
        folders = [entry["name"].rstrip("/") + "/" for entry in entries if entry["type"] == "directory"]
        yield Page(folders, [self._info(entry) for entry in entries if entry["type"] != "directory"])

    def _ls(self, folder: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache(folder)
        return list(self._fs.ls(folder, detail=True))

    def is_container(self) -> bool:
        """Whether the path is a bucket that exists, or the root: it may be empty."""
        return "/" not in self.path.strip("/") and bool(self._fs.exists(self.path))

    def info(self, path: str) -> ObjectInfo | None:
        """One object, None when there is none.

        Raises:
            SourceUnreachable
        """
        try:
            found = self.retrying("head", path, lambda: self._fs.info(path))
        except FileNotFoundError:
            return None
        except (OSError, StoreUnavailable) as error:
            raise SourceUnreachable(f"{self.scheme}://{path}: {error}") from error
        return None if found["type"] == "directory" else self._info(found)

    def fetch(self, path: str, file_name: str) -> None:
        """One object into a local file, by one GET; a broken transfer begins anew.

        Raises:
            SourceUnreadable; OSError: no room for it.
        """
        whole = in_one_piece(f"{self.scheme}://")
        try:
            self.retrying("get", path, lambda: self._fs.get_file(path, file_name, callback=patience(self._timeout_s), **whole))
        except OSError as error:
            raise SourceUnreadable(f"{path}: {error}") from error
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise cause from None
            raise SourceUnreadable(str(error)) from error

    @contextmanager
    def opened(self, path: str) -> Iterator[str]:
        """The path of a copy of an object, while the context lasts.

        Raises:
            SourceUnreachable
        """
        with tempfile.NamedTemporaryFile(prefix="pagemill-source-") as file:
            try:
                self.fetch(path, file.name)
            except SourceUnreadable as error:
                raise SourceUnreachable(str(error)) from error
            yield file.name

    def _info(self, info: Mapping[str, Any]) -> ObjectInfo:
        etag = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("created") or info.get("mtime")
        return ObjectInfo(f"{self.scheme}://{info['name'].lstrip('/')}", info.get("size"), str(etag).strip('"') if etag else None)


_CLIENTS = 8  # of an S3 client 13 MiB (its library's description of the service); a manifest may name any number of buckets


class RemoteSources:
    """Remote file systems of many objects: one for all buckets of S3 that are opened alike, else one a bucket, the ones that
    were used last. Any thread may ask."""

    def __init__(self) -> None:
        self._counting = Counting(0)
        self._open: dict[tuple[str, str], RemoteSource] = {}  # the one that was used last comes last
        self._lock = threading.Lock()

    def of(self, uri: str, options: Mapping[str, Any]) -> RemoteSource:
        """What looks at an object and fetches it, by its path."""
        scheme = uri.partition("://")[0]
        place = f"{scheme}://" if scheme in ("s3", "s3a") else bucket_of(uri)
        key = place, json.dumps(options, sort_keys=True, default=repr)
        with self._lock:
            found = self._open.pop(key, None) or RemoteSource(place, options, counting=self._counting)
            self._open[key] = found
            if len(self._open) > _CLIENTS:
                del self._open[next(iter(self._open))]
            return found

    @property
    def counts(self) -> Counter[str]:
        """Requests of all of them."""
        return Counter(self._counting.counts)


def bucket_of(uri: str) -> str:
    """Scheme and bucket (or host) of a remote URI."""
    return "/".join(uri.split("/", 3)[:3])
