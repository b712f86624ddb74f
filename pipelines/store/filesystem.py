"""What both ends of a run share: requests that are counted, bounded in time and retried a bounded number of times, file
systems by URI, and files that appear whole. The only importer of fsspec.

Invariant: what an answer means (absent, forbidden, exists) is passed on at once; only the lack of an answer is retried.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import ConfigError, StoreUnavailable
from pipelines.observe.log import EventLog

log = EventLog()

T = TypeVar("T")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 8.0
_WHOLE = 10  # times its time-out: a request with its body, however steadily bytes drip in
_LEAST_RATE = 256 << 10  # bytes a second of a document, beyond that
_CONNECTIONS = 256  # of one S3 client at most, opened as they are needed; its library's limit of 10 would hold back more requests
TEMPORARY = ".pagemill-tmp-"  # how a file that is not whole yet begins its name


class Busy(ConnectionError):
    """A server answered that it is to be asked again, after so many seconds."""

    def __init__(self, words: str, after_s: float) -> None:
        super().__init__(words)
        self.after_s = after_s


class Counting:
    """Requests made, by kind: get, put, head, list, delete, and those that were retried.

    Args:
        with_: whose counts these are too.
    """

    def __init__(self, retries: int, with_: Counting | None = None) -> None:
        self.counts: Counter[str] = Counter() if with_ is None else with_.counts
        self._retries = retries
        self._lock: threading.Lock = threading.Lock() if with_ is None else with_._lock

    def count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1

    def retrying(self, kind: str, what: str, request: Callable[[], T], patience_s: float = 0.0) -> T:
        """Runs a request until it answers; what an answer means (absent, forbidden, exists) is passed on at once.

        Args:
            patience_s: at most so long is waited before each further try, where a server asks for it (`Busy`).

        Raises:
            StoreUnavailable: after `retries` more tries.
        """
        wait = _FIRST_WAIT_S
        for attempt in range(self._retries + 1):
            self.count(kind)
            try:
                return request()
            except (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError):
                raise
            except Exception as error:  # connection resets, time-outs, 5xx, each library with classes of its own
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
                    raise StoreUnavailable(f"{what}: {error}") from error
                if attempt == self._retries:
                    raise StoreUnavailable(f"{what}: {type(error).__name__}: {error} (after {attempt + 1} tries)") from error
                self.count("retried")
                log.info("request_retried", kind=kind, key=what, attempt=attempt + 1, error=f"{type(error).__name__}: {error}")
                asked = min(error.after_s, patience_s) if isinstance(error, Busy) else 0.0
                time.sleep(max(asked, wait * random.uniform(0.5, 1.0)))
                wait = min(wait * 2, _LONGEST_WAIT_S)
        raise AssertionError("unreachable")


def open_filesystem(uri: str, options: Mapping[str, Any], timeout_s: float) -> tuple[Any, str]:
    """(None, absolute path) for a local URI, else (fsspec file system, path without trailing slash).

    Raises:
        ConfigError: a scheme that no installed package knows.
    """
    if "://" not in uri or uri.startswith("file://"):
        return None, os.path.abspath(uri.removeprefix("file://"))
    import fsspec

    settings = dict(options)
    if uri.startswith(("s3://", "s3a://")):
        # retries are ours, counted and with jitter; botocore's own would multiply them
        config = {
            "retries": {"total_max_attempts": 1}, "read_timeout": timeout_s, "connect_timeout": min(10, timeout_s),
            "max_pool_connections": _CONNECTIONS,
        } | settings.get("config_kwargs", {})  # fmt: skip
        settings = {"use_listings_cache": False, "skip_instance_cache": True} | settings | {"config_kwargs": config}
        if "AWS_ENDPOINT_URL" in os.environ:
            settings.setdefault("endpoint_url", os.environ["AWS_ENDPOINT_URL"])
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **settings)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{uri}: {error}") from error
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1  # s3fs has a loop of its own
    return filesystem, path.rstrip("/")


def in_one_piece(uri: str) -> dict[str, int]:
    """Options of a read, for one request an object: s3fs asks for its size first, and for a large one's ranges one by one."""
    return {"max_concurrency": 1} if uri.startswith(("s3://", "s3a://")) else {}


def private_folder(folder: Path) -> Path:
    """Makes a folder of this user's alone, in a place that others may write to (the temporary directory).

    Raises:
        ConfigError: somebody else made it, or may write to it: what is in it cannot be believed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ConfigError(f"{folder} is not this user's alone; remove it, or point TMPDIR elsewhere")
    return folder


def ask(filesystem: Any, verb: str, *arguments: Any, timeout_s: float, **options: Any) -> Any:
    """One request, with its body over after ten times `timeout_s`: the libraries' time-outs begin anew with each byte.

    Raises:
        TimeoutError; whatever the file system raises.
    """
    coroutine = getattr(filesystem, f"_{verb}", None)
    if coroutine is None or not getattr(filesystem, "async_impl", False):
        return getattr(filesystem, verb)(*arguments, **options)
    from fsspec.asyn import sync

    return sync(filesystem.loop, coroutine, *arguments, timeout=_WHOLE * timeout_s, **options)


def patience(timeout_s: float) -> Any:
    """An fsspec callback for one transfer of any size: it ends the transfer when that is far too slow for its size."""
    from fsspec.callbacks import Callback

    began = time.monotonic()

    def look(size: int | None, value: int, **_: Any) -> None:
        spent = time.monotonic() - began
        if spent > _WHOLE * timeout_s + (size or 0) / _LEAST_RATE:
            raise TimeoutError(f"{value} of {size} bytes in {spent:.0f} s")

    return Callback(hooks={"patience": look})


def write_local(path: str, data: bytes, publish: Callable[[str, str], None]) -> None:
    """A temporary file in the same directory, fsync, its final name by `publish`, fsync of the directory."""
    directory = os.path.dirname(path)
    _make_directory(directory)
    temporary = os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}")
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


def link_new(temporary: str, path: str) -> None:
    """The final name, only if nobody has it: `link` is atomic where a check followed by an open is not."""
    os.link(temporary, path)


def _make_directory(directory: str) -> None:
    """With its parents, each entry on the disk before anything is written below it.

    Raises:
        NotADirectoryError: a file has that name. Not FileExistsError, by which a put says that somebody was first.
    """
    if not os.path.isdir(directory):
        parent = os.path.dirname(directory)
        _make_directory(parent)
        try:
            os.makedirs(directory, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory) from error
        _sync_directory(parent)


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
