"""Objects by key below one root: a local folder or any fsspec URI.

Invariant: an object appears whole or not at all; `put_new` never replaces one; a listing is never taken from a cache and
never silently cut short. No key leads out of the root, whoever made it up: a ledger, a part, a name of a figure.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import ConfigError, DamagedOutput, OutputUnwritable, StoreUnavailable
from pipelines.store.filesystem import TEMPORARY, Counting, ask, in_one_piece, link_new, open_filesystem, write_local

T = TypeVar("T")


def is_utf8(name: str) -> bool:
    """False: bytes that are none, as a shell hands them over."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class ObjectStore(Counting):
    """An OUTPUT. Keys are relative, with `/`.

    Args:
        root: a path, or a URI that fsspec knows (s3://bucket/prefix).
        options: for fsspec, e.g. `{"endpoint_url": ...}`; S3 credentials and endpoint come from the usual variables.
        retries: of one request. timeout_s: of one request (S3), while nothing comes; ten times that with its body.

    Raises:
        ConfigError: a name that is not UTF-8, or no name at all; it would be the folder that the process happens to be in.
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None, retries: int = 6, timeout_s: float = 60) -> None:
        if not root.strip():
            raise ConfigError("the name of the folder for results is empty; is a variable of the shell not set?")
        if not is_utf8(root):
            raise ConfigError(f"{root!r}: the name of the folder for results is not UTF-8; name another one")
        super().__init__(retries)
        self._fs, self._root = open_filesystem(root, options or {}, timeout_s)
        self._timeout_s = timeout_s
        self.is_local = self._fs is None
        self.root = self._root if self.is_local else root.rstrip("/")

    def retrying(self, kind: str, what: str, request: Callable[[], T], patience_s: float = 0.0) -> T:
        """
        Raises:
            StoreUnavailable: also when the store says no. It said yes when the run began: credentials expire, a clock goes wrong
                (S3 refuses requests that are 15 minutes off), somebody changes a policy; no page is to blame.
        """
        try:
            return super().retrying(kind, what, request, patience_s)
        except PermissionError as error:
            raise StoreUnavailable(f"{what}: not permitted: {error}") from error

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes:
        """
        Raises:
            FileNotFoundError, StoreUnavailable
        """
        path = self._path(key)
        if self._fs is None:
            return self.retrying("get", key, lambda: Path(path).read_bytes())
        whole = in_one_piece(self.root)
        return bytes(self.retrying("get", key, lambda: ask(self._fs, "cat_file", path, timeout_s=self._timeout_s, **whole)))

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
                return self.retrying("head", key, lambda: os.stat(path).st_size)
            info = self.retrying("head", key, lambda: self._fs.info(path, refresh=True))
            return None if info.get("type") == "directory" else int(info["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys below a prefix (a folder), in no order."""
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        if self._fs is None:
            self.count("list")
            for directory, _, names in os.walk(folder):
                for name in names:
                    if not name.startswith(TEMPORARY):
                        yield os.path.relpath(os.path.join(directory, name), self._root).replace(os.sep, "/")
            return
        found = self.retrying("list", prefix, lambda: _walk_uncached(self._fs, folder))
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
            self.retrying("put", key, lambda: write_local(path, data, os.replace))
        else:
            self.retrying("put", key, lambda: self._replace_remote(path, data))

    def put_new(self, key: str, data: bytes) -> bool:
        """Creates an object; False when there is one already.

        After an unknown outcome it is tried again and may then find our own object: the caller reads it back.
        """
        path = self._path(key)
        try:
            if self._fs is None:
                self.retrying("put", key, lambda: write_local(path, data, link_new))
            else:
                self.retrying("put", key, lambda: self._create_remote(path, data))
        except FileExistsError:
            return False
        return True

    def _replace_remote(self, path: str, data: bytes) -> None:
        with _nothing_can_be_absent():
            ask(self._fs, "pipe_file", path, data, timeout_s=self._timeout_s)

    def _create_remote(self, path: str, data: bytes) -> None:
        try:
            with _nothing_can_be_absent():
                ask(self._fs, "pipe_file", path, data, mode="create", timeout_s=self._timeout_s)
        except OSError as error:
            # 412: it is there. A 409 (another create is under way) is tried again like a lost answer: it ends in one or the other
            if "PreconditionFailed" in str(error):
                raise FileExistsError(path) from error
            raise

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            self.retrying("delete", key, lambda: os.unlink(path) if self._fs is None else self._fs.rm_file(path))
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
        if key.startswith("/") or "\0" in key or ".." in key.split("/"):
            raise DamagedOutput(f"{key!r} is no key: it leads out of {self.root}")
        return f"{self._root}/{key}"


@contextmanager
def _nothing_can_be_absent() -> Iterator[None]:
    """In a put: what s3fs calls absent is a bucket that is gone, or an upload whose end was done and its answer lost."""
    try:
        yield
    except FileNotFoundError as error:
        raise OSError(errno.EIO, str(error)) from error


def _walk_uncached(filesystem: Any, folder: str) -> list[str]:
    """Files below a folder. s3fs looks twice, so a folder that begins to be in between is "found" in itself."""
    filesystem.invalidate_cache()
    try:
        return [path for path in filesystem.find(folder) if path.rstrip("/") != folder]
    except FileNotFoundError:
        return []
