"""A node's documents, by content: fetched once, shared by its processes, bounded.

Invariant: a file under its digest holds exactly those bytes (it takes its name only when whole and hashed, in a folder that
nobody else can write to), and they are of one state of their object, never half old and half new; a document that a process
works on is held by a shared lock and never evicted; what a killed process left behind is cleaned up; whatever is wrong with
this node's disk is a named error. Only a digest is a name here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from pipelines.config import SourceConfig, WebLimits
from pipelines.errors import DamagedOutput, SourceChanged, SourceUnreadable
from pipelines.secrets import public
from pipelines.source.listing import is_remote, local_path
from pipelines.source.remote import RemoteSources
from pipelines.source.web import WebSource, is_web
from pipelines.store.filesystem import private_folder

_PARTIAL = ".partial-"
_DIGEST = re.compile("[0-9a-f]{64}")
_YOUNG_S = 60.0  # a partial file is begun before it is locked; its transfer touches it all the time
_LOOKS = 64  # at the size while a full cache takes in once what it holds: each goes through all of its files
_FORGET_S = 7 * 86_400.0  # after which a lock or an allowance that nobody touched goes: both are as good when made anew
_MOST_COPIES = 3  # of a local file that changes under the copy; one that is still being written waits for the next run


@dataclass(slots=True, frozen=True)
class CachedDocument:
    doc_id: str
    path: Path
    size: int


class DocumentCache:
    """
    Args:
        directory: None: `pagemill-cache-<uid>` in the temporary directory.
        limit_gib: what it may hold; documents in use may exceed it.
        web: bounds of what comes from web servers; None: nothing does.
    """

    def __init__(self, directory: Path | None, limit_gib: float, web: WebLimits | None = None) -> None:
        self._default = directory is None
        self._directory = directory or Path(tempfile.gettempdir()) / f"pagemill-cache-{os.getuid()}"
        self._make()
        self._limit = int(limit_gib * (1 << 30))
        self._until_look = 0  # bytes that may be fetched before the cache's size is looked at
        self._lock = threading.Lock()
        self._local_gets = 0
        self._sources = RemoteSources()
        self._web = WebSource(web) if web is not None else None

    @classmethod
    def of(cls, config: SourceConfig) -> DocumentCache:
        return cls(Path(config.cache_dir) if config.cache_dir else None, config.cache_gib, config.web)

    def fetch(self, uri: str, options: Mapping[str, Any]) -> CachedDocument:
        """Streams an object once, hashes it, and keeps it under its digest. A link may hold what opens it.

        Raises:
            SourceUnreadable, SourceTooLarge
        """
        with self.fetched(uri, options) as found:
            return found

    @contextmanager
    def fetched(self, uri: str, options: Mapping[str, Any]) -> Iterator[CachedDocument]:
        """As `fetch`; while the context lasts it is not evicted.

        Raises:
            SourceUnreadable, SourceTooLarge
        """
        with ExitStack() as held:
            with self._on_disk():
                file = held.enter_context(self._partial())
                self._transfer(uri, options, file)
                doc_id, size = _digest(file)
                path = self._path(doc_id)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                fcntl.flock(file, fcntl.LOCK_SH)  # as everybody's who uses it
                os.replace(file.name, path)
            with self._lock:
                self._until_look -= size
                due = self._until_look <= 0
            if due:
                self.evict()
            yield CachedDocument(doc_id, path, size)

    @contextmanager
    def use(self, doc_id: str, uri: str, options: Mapping[str, Any]) -> Iterator[Path]:
        """The document's bytes on this node while the context lasts.

        Raises:
            SourceChanged: what the URI holds now is another document.
            SourceUnreadable
        """
        path = self._path(doc_id)
        with self._on_disk():
            held = self._hold(path, uri, options)
        try:
            os.utime(held)
            yield path
        finally:
            os.close(held)

    def _hold(self, path: Path, uri: str, options: Mapping[str, Any]) -> int:
        """A descriptor with a shared lock on the document, fetched first if it is not there."""
        while True:
            self._make()
            path.parent.mkdir(mode=0o700, exist_ok=True)
            held = _open_shared(path)
            if held is not None:
                return held
            with _exclusive(path.with_name(f"{path.name}.lock")):  # one GET a node: the others wait and find it
                if path.exists():
                    continue
                with self.fetched(uri, options) as found:
                    if found.doc_id != path.name:
                        raise SourceChanged(f"{public(uri)} now holds document {found.doc_id[:12]}, not {path.name[:12]}")
                    # before it may be evicted: one that is larger than the whole cache would be at once
                    if (held := _open_shared(path)) is not None:
                        return held

    @property
    def requests(self) -> Counter[str]:
        """Requests to sources that this process made, by kind."""
        with self._lock:
            counted = Counter({"get": self._local_gets} if self._local_gets else {})
            counted.update(self._sources.counts)
            if self._web is not None:
                counted.update(self._web.counts)
            return counted

    def budget_path(self, doc_id: str, reading: int = 1) -> Path:
        """Where the document's allowance of deadlines on this node is counted."""
        return self._path(doc_id).with_suffix(".budget" if reading == 1 else f".{reading}.budget")

    def evict(self) -> None:
        """Removes the least recently used documents beyond the limit, and what dead processes and long gone documents left."""
        documents, total, now = [], 0, time.time()
        for path in self._directory.glob("**/*"):
            try:
                found = path.stat()
            except OSError:
                continue
            if path.name.startswith(_PARTIAL):
                _remove_abandoned(path, found.st_mtime)
            elif len(path.name) == 64:
                documents.append((found.st_mtime, found.st_size, path))
                total += found.st_size
            elif path.suffix in (".lock", ".budget") and now - found.st_mtime > _FORGET_S:
                _remove_unused(path)
        for _, size, path in sorted(documents):
            if total <= self._limit:
                break
            if _remove_unused(path):
                total -= size
        with self._lock:  # other processes fetch too: hence an eighth of the room, not all of it
            self._until_look = max((self._limit - total) // 8, self._limit // _LOOKS)

    def _make(self) -> None:
        """Again too: who tidies up temporary folders may have removed it."""
        if self._default:
            private_folder(self._directory)
        else:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, doc_id: str) -> Path:
        if not _DIGEST.fullmatch(doc_id):
            raise DamagedOutput(f"{doc_id!r} is no document's id")  # of a ledger that somebody made up
        return self._directory / doc_id[:2] / doc_id

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """What this node's disk does to a document is no fault of the document."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SourceUnreadable(
                    f"no room for the document in {self._directory}: {error}; free some, or set source.cache_dir"
                ) from error
            raise SourceUnreadable(f"the cache {self._directory} cannot be used: {error}; set source.cache_dir") from error

    @contextmanager
    def _partial(self) -> Iterator[BufferedRandom]:
        for _ in range(_MOST_COPIES):
            self._make()
            path = self._directory / f"{_PARTIAL}{secrets.token_hex(8)}"
            with open(path, "w+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # released by the end of the process, whatever ends it
                if not path.exists():  # whose clock is ahead found it old, and no lock on it yet
                    continue
                try:
                    yield file
                finally:
                    path.unlink(missing_ok=True)
                return
        raise FileNotFoundError(errno.ENOENT, "what is begun there is removed at once", str(self._directory))

    def _transfer(self, uri: str, options: Mapping[str, Any], file: BufferedRandom) -> None:
        if is_web(uri) and self._web is not None:
            self._web.fetch(uri, file.name)
            return
        if is_remote(uri):
            self._sources.of(uri, options).fetch(uri.partition("://")[2], file.name)
            return
        with self._lock:
            self._local_gets += 1
        for _ in range(_MOST_COPIES):
            file.seek(0)
            file.truncate()
            try:
                if _copy(local_path(uri), file):
                    return
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise SourceUnreadable(f"{uri}: {error.strerror}") from error
        raise SourceUnreadable(f"{uri}: it changed while it was read, {_MOST_COPIES} times; is it still being written?")


def _copy(original: str | bytes, file: BufferedRandom) -> bool:
    """Whether the file stayed as it was while it was copied: else the copy may be half of one state, half of another."""
    with open(original, "rb") as source:
        before = os.fstat(source.fileno())
        shutil.copyfileobj(source, file, 1 << 20)
        after = os.fstat(source.fileno())
    return all(getattr(before, name) == getattr(after, name) for name in ("st_size", "st_mtime_ns", "st_ctime_ns"))


def _digest(file: BufferedRandom) -> tuple[str, int]:
    file.flush()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")
    return digest.hexdigest(), file.tell()


def _open_shared(path: Path) -> int | None:
    """A descriptor that holds the document, or None when it is not there (any more)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_nlink == 0:  # evicted between the two calls
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_unused(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path, modified: float) -> None:
    """A partial file whose process is dead: nobody holds its lock."""
    if time.time() - modified > _YOUNG_S:
        _remove_unused(path)
