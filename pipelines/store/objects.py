"""Objects by key below one root: a local folder or any fsspec URI. The only importer of fsspec.

Invariant: an object appears whole or not at all; `put_new` never replaces one; every request is counted, bounded in time
and retried a bounded number of times; a listing is never taken from a cache and never silently cut short.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pipelines.errors import OutputUnwritable, SourceUnreachable, SourceUnreadable, StoreUnavailable

T = TypeVar("T")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 8.0
_CHUNK = 1 << 20


class _Counting:
    """Requests made, by kind; shared by both ends of a run."""

    def __init__(self, retries: int) -> None:
        self.counts: Counter[str] = Counter()
        self._retries = retries
        self._lock = threading.Lock()

    def _count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1

    def _retrying(self, kind: str, what: str, request: Callable[[], T]) -> T:
        """Runs a request until it answers; what an answer means (absent, forbidden, exists) is passed on at once.

        Raises:
            StoreUnavailable: after `retries` more tries.
        """
        wait = _FIRST_WAIT_S
        for attempt in range(self._retries + 1):
            self._count(kind)
            try:
                return request()
            except (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError):
                raise
            except Exception as error:  # connection resets, time-outs, 5xx, each library with classes of its own
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
                    raise StoreUnavailable(f"{what}: {error}") from error
                if attempt == self._retries:
                    raise StoreUnavailable(f"{what}: {type(error).__name__}: {error} (after {attempt + 1} tries)") from error
                self._count("retried")
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, _LONGEST_WAIT_S)
        raise AssertionError("unreachable")


class ObjectStore(_Counting):
    """An OUTPUT. Keys are relative, with `/`.

    Args:
        root: a path, or a URI that fsspec knows (s3://bucket/prefix).
        options: for fsspec, e.g. `{"endpoint_url": ...}`; S3 credentials and endpoint come from the usual variables.
        retries: of one request. timeout_s: of one request (S3).
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None, retries: int = 6, timeout_s: float = 60) -> None:
        super().__init__(retries)
        self._fs, self._root = _filesystem(root, options or {}, timeout_s)
        self.is_local = self._fs is None
        self.root = self._root if self.is_local else root.rstrip("/")

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        """
        Raises:
            FileNotFoundError, StoreUnavailable
        """
        path = self._path(key)
        if self._fs is None:
            return self._retrying("get", key, lambda: Path(path).read_bytes())
        return bytes(self._retrying("get", key, lambda: self._fs.cat_file(path)))

    def get_to_file(self, key: str, file: Path) -> int:
        """Fetches an object into a new file that appears whole; bytes written."""
        data = self.get(key)
        partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        partial.write_bytes(data)
        partial.replace(file)
        return len(data)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes, or None when there is no such object."""
        path = self._path(key)
        try:
            if self._fs is None:
                return self._retrying("head", key, lambda: os.stat(path).st_size)
            info = self._retrying("head", key, lambda: self._fs.info(path, refresh=True))
            return None if info.get("type") == "directory" else int(info["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys below a prefix (a folder), in no order."""
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        if self._fs is None:
            self._count("list")
            for directory, _, names in os.walk(folder):
                for name in names:
                    if not name.startswith(_TEMPORARY):
                        yield os.path.relpath(os.path.join(directory, name), self._root).replace(os.sep, "/")
            return
        found = self._retrying("list", prefix, lambda: _walk_uncached(self._fs, folder))
        yield from (path[len(self._root) + 1 :] for path in found)

    def local_path(self, key: str) -> Path | None:
        return Path(self._path(key)) if self._fs is None else None

    def child_uri(self, key: str) -> str:
        return f"{self.root}/{key}"

    @property
    def filesystem(self) -> Any:
        """The fsspec file system of a remote root (for DuckDB), None for a local one."""
        return self._fs

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        """Creates or replaces an object."""
        path = self._path(key)
        if self._fs is None:
            self._retrying("put", key, lambda: _write_local(path, data, os.replace))
        else:
            self._retrying("put", key, lambda: self._fs.pipe_file(path, data))

    def put_new(self, key: str, data: bytes) -> bool:
        """Creates an object; False when there is one already.

        After an unknown outcome it is tried again and may then find our own object: the caller reads it back.
        """
        path = self._path(key)
        try:
            if self._fs is None:
                self._retrying("put", key, lambda: _write_local(path, data, _link_new))
            else:
                self._retrying("put", key, lambda: self._create_remote(path, data))
        except FileExistsError:
            return False
        return True

    def _create_remote(self, path: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(path, data, mode="create")
        except OSError as error:
            # 412: it is there; 409: another create is under way. s3fs names the first, not always the second
            if "PreconditionFailed" in str(error) or "ConditionalRequestConflict" in str(error):
                raise FileExistsError(path) from error
            raise

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            self._retrying("delete", key, lambda: os.unlink(path) if self._fs is None else self._fs.rm_file(path))
        except FileNotFoundError:
            return

    def check_writable(self) -> None:
        """Two creations of one key: the first must succeed, the second be refused, else nothing here can fence.

        Raises:
            OutputUnwritable
        """
        key = f".pagemill-probe-{secrets.token_hex(8)}"
        try:
            first, second = self.put_new(key, b"1"), self.put_new(key, b"2")
        except (OSError, StoreUnavailable) as error:
            raise OutputUnwritable(f"cannot write below {self.root}: {error}") from error
        self.delete(key)
        if not first or second:
            raise OutputUnwritable(
                f"{self.root}: the store does not refuse to create an object twice; it cannot be shared safely"
            )

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


# -- sources --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class ObjectInfo:
    """One listed object; a local one has times and inode, a remote one an etag."""

    uri: str
    size: int | None
    etag: str | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None


class SourceFs(_Counting):
    """The source's side of a remote file system (local ones are walked by `source/listing.py` itself)."""

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None, retries: int = 6, timeout_s: float = 60) -> None:
        super().__init__(retries)
        self._fs, self.path = _filesystem(uri, options or {}, timeout_s)
        self.is_local = self._fs is None
        self._scheme = "" if self.is_local else uri.partition("://")[0]

    def listing(self) -> Iterator[ObjectInfo]:
        """Objects below the path, folder by folder; a single object lists itself.

        Raises:
            SourceUnreachable
        """
        folders, seen = [self.path], False
        while folders:
            folder = folders.pop()
            for info in self._folder(folder):
                seen = True
                if info["type"] == "directory":
                    folders.append(info["name"].rstrip("/"))
                elif info["name"].rstrip("/") != folder or info.get("size"):
                    yield self._info(info)
                else:
                    yield self._info({**info, "name": folder + "/"})  # a zero-byte folder key
        if not seen and not self._is_container():
            raise SourceUnreachable(f"{self._scheme}://{self.path}: there is no such object or folder")

    def glob(self, pattern: str) -> Iterator[ObjectInfo]:
        try:
            found = self._retrying("list", pattern, lambda: self._fs.glob(pattern, detail=True))
        except (OSError, StoreUnavailable) as error:
            raise SourceUnreachable(f"{self._scheme}://{pattern}: {error}") from error
        for info in found.values():
            if info["type"] != "directory":
                yield self._info(info)

    def info(self, path: str) -> ObjectInfo | None:
        """One object, None when there is none."""
        try:
            info = self._retrying("head", path, lambda: self._fs.info(path))
        except FileNotFoundError:
            return None
        except (OSError, StoreUnavailable) as error:
            raise SourceUnreachable(str(error)) from error
        return None if info["type"] == "directory" else self._info(info)

    def fetch(self, path: str, file: BinaryIO) -> int:
        """Streams one object into a file, once; a broken transfer begins anew.

        Raises:
            SourceUnreadable
        """

        def transfer() -> int:
            file.seek(0)
            file.truncate()
            with open(path, "rb") if self._fs is None else self._fs.open(path, "rb", block_size=8 * _CHUNK) as source:
                while chunk := source.read(8 * _CHUNK):
                    file.write(chunk)
            return file.tell()

        try:
            return self._retrying("get", path, transfer)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SourceUnreadable(f"{path}: {error}") from error
        except StoreUnavailable as error:
            raise SourceUnreadable(str(error)) from error

    def _folder(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._retrying("list", folder, lambda: _ls_uncached(self._fs, folder)))
        except FileNotFoundError:
            return []
        except (OSError, StoreUnavailable) as error:
            raise SourceUnreachable(f"{self._scheme}://{folder}: {error}") from error

    def _is_container(self) -> bool:
        """Whether an empty path is a bucket that exists, or the root."""
        return "/" not in self.path.strip("/") and bool(self._fs.exists(self.path))

    def _info(self, info: Mapping[str, Any]) -> ObjectInfo:
        etag = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("created") or info.get("mtime")
        return ObjectInfo(
            f"{self._scheme}://{info['name'].lstrip('/')}", info.get("size"), str(etag).strip('"') if etag else None
        )


def open_source(uri: str, options: Mapping[str, Any] | None = None) -> SourceFs:
    return SourceFs(uri, options)


# -- fsspec and the local disk ----------------------------------------------------------------------------------------

_TEMPORARY = ".pagemill-tmp-"


def _filesystem(uri: str, options: Mapping[str, Any], timeout_s: float) -> tuple[Any, str]:
    """(None, absolute path) for a local URI, else (fsspec file system, path without trailing slash)."""
    if "://" not in uri or uri.startswith("file://"):
        return None, os.path.abspath(uri.removeprefix("file://"))
    import fsspec

    settings = dict(options)
    if uri.startswith(("s3://", "s3a://")):
        # retries are ours, counted and with jitter; botocore's own would multiply them
        config = {"retries": {"total_max_attempts": 1}, "read_timeout": timeout_s, "connect_timeout": min(10, timeout_s)}
        settings = {"config_kwargs": config, "use_listings_cache": False, "skip_instance_cache": True} | settings
        if "AWS_ENDPOINT_URL" in os.environ:
            settings.setdefault("endpoint_url", os.environ["AWS_ENDPOINT_URL"])
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **settings)
    except (ImportError, ValueError) as error:
        raise OutputUnwritable(f"{uri}: {error}") from error
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1  # s3fs has a loop of its own
    return filesystem, path.rstrip("/")


def _ls_uncached(filesystem: Any, folder: str) -> list[dict[str, Any]]:
    filesystem.invalidate_cache(folder)
    return list(filesystem.ls(folder, detail=True))


def _walk_uncached(filesystem: Any, folder: str) -> list[str]:
    filesystem.invalidate_cache()
    try:
        return list(filesystem.find(folder))
    except FileNotFoundError:
        return []


def _write_local(path: str, data: bytes, publish: Callable[[str, str], None]) -> None:
    """A temporary file in the same directory, fsync, its final name by `publish`, fsync of the directory."""
    directory = os.path.dirname(path)
    os.makedirs(directory, exist_ok=True)
    temporary = os.path.join(directory, f"{_TEMPORARY}{secrets.token_hex(8)}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
        _sync_directory(directory)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _link_new(temporary: str, path: str) -> None:
    """The final name, only if nobody has it: `link` is atomic where a check followed by an open is not."""
    os.link(temporary, path)


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
