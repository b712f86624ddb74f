"""What a source holds: a directory, a glob, one file, or a manifest of URIs; a stream, never sorted or held in memory.

Invariant: names are kept byte for byte. A local object's URI is its absolute path; a path that is not UTF-8 becomes
`file://` with every odd byte percent-encoded, so the two forms cannot be mistaken for each other. A listing that breaks off
raises; it never ends early without a word.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa

from pipelines.config import WebLimits
from pipelines.errors import ConfigError, SourceTooLarge, SourceUnreachable, SourceUnreadable
from pipelines.secrets import public
from pipelines.source.manifest import Row, is_manifest, manifest_rows
from pipelines.source.pattern import Pattern, is_pattern
from pipelines.source.remote import ObjectInfo, RemoteSource, RemoteSources
from pipelines.source.web import WebSource, is_web

RowReader = Callable[[str, str], Iterator[Row]]

OUTPUT_MARK = "pagemill.json"
_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "_SUCCESS"})

BATCH = pa.schema(
    [
        ("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string()),
        ("mtime_ns", pa.int64()), ("ctime_ns", pa.int64()), ("inode", pa.int64()),
        ("pages", pa.string()), ("options", pa.string()), ("secret", pa.int32()),
    ]
)  # fmt: skip


def discover(
    source: str,
    options: Mapping[str, Any],
    skipped: Counter[str],
    requests: Counter[str] | None = None,
    web: WebLimits | None = None,
    read: RowReader = manifest_rows,
) -> Iterator[ObjectInfo]:
    """Every object of a source; what is left out is counted in `skipped` by reason, requests in `requests` by kind.

    Args:
        web: bounds of http(s) requests; None: there are none.
        read: rows of a manifest, by its name and the path of a copy.

    Raises:
        SourceUnreachable: there is no such source, or its listing broke off.
        ConfigError: a manifest without a column of URIs, or no name at all.
    """
    check_name(source)
    if is_web(source):
        with opened_manifest(source, options, web) as copy:
            yield from _named_by(source, copy, options, requests, web, read)
        return
    if is_remote(source):
        remote = RemoteSource(source, options)
        try:
            yield from _remote(source, remote, options, skipped, web, read)
        finally:
            if requests is not None:
                requests.update(remote.counts)
        return
    path = os.path.abspath(local_path(source))
    if os.path.isdir(path):
        yield from _walk(path, skipped, None)
    elif os.path.lexists(path):
        if is_manifest(path):
            yield from _named_by(path, path, options, requests, web, read)
        else:
            yield local_info(path)
    elif is_pattern(source):
        pattern = Pattern.parse(path)
        yield from _walk(pattern.root or "/", skipped, pattern)
    else:
        raise SourceUnreachable(f"{source}: there is no such file or folder")


def check_name(source: str) -> None:
    """
    Raises:
        ConfigError: no name at all; it would be the folder that the process happens to be in.
    """
    if not source.strip():
        raise ConfigError("the name of the source is empty; is a variable of the shell not set?")


_FIRST_BATCH = 1_000  # one answer of an object store: reading begins with it
_LARGEST_BATCH = 100_000  # each costs a pass over all known objects: against 990,000 of them 10 passes take 2 s, 100 take 9 s


def batched(listing: Iterable[ObjectInfo]) -> Iterator[pa.Table]:
    """Tables of schema `BATCH`, the first ones small."""
    remaining, size = iter(listing), _FIRST_BATCH
    while some := list(islice(remaining, size)):
        columns = {name: [getattr(info, name) for info in some] for name in BATCH.names}
        yield pa.table(columns, schema=BATCH)
        size = min(2 * size, _LARGEST_BATCH)


def prefix_of(source: str) -> str | None:
    """The prefix of all URIs that a complete listing of this source decides about; None: it names objects one by one."""
    if is_web(source):
        return None
    if is_remote(source):
        return None if is_pattern(source) or is_manifest(source) else source.rstrip("/") + "/"
    path = os.path.abspath(local_path(source))
    return local_uri(path).rstrip("/") + "/" if os.path.isdir(path) else None


# -- local names ------------------------------------------------------------------------------------------------------


def local_uri(path: str) -> str:
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(raw)


def local_path(uri: str) -> str:
    """The inverse of `local_uri`."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri


def local_info(path: str) -> ObjectInfo:
    """Identity of a local file; one that cannot be looked at (a dangling link) has none and fails when it is fetched."""
    try:
        found = os.stat(path)
    except OSError:
        return ObjectInfo(local_uri(path), None)
    return ObjectInfo(local_uri(path), found.st_size, None, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _walk(root: str, skipped: Counter[str], pattern: Pattern | None) -> Iterator[ObjectInfo]:
    folders: list[tuple[str, tuple[str, ...]]] = [(root, ())]  # with the names that lead there from the root
    while folders:
        folder, names = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            if names and isinstance(error, FileNotFoundError):
                continue  # removed since its parent was read: nothing is in it
            raise SourceUnreachable(f"{local_uri(folder)}: {error.strerror}") from error
        if any(entry.name == OUTPUT_MARK for entry in found):
            skipped["pagemill_output"] += 1
            continue
        for entry in found:
            here = (*names, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    skipped["dot_folder"] += 1
                elif pattern is None or pattern.may_hold(here):
                    folders.append((entry.path, here))
            elif entry.is_symlink() and os.path.isdir(entry.path):
                skipped["link_to_folder"] += 1
            elif (pattern is None or pattern.matches(here)) and not _dropped(entry.name, skipped):
                if (not entry.is_symlink() and not entry.is_file()) or (entry.is_symlink() and _is_special(entry.path)):
                    skipped["not_a_file"] += 1
                else:
                    yield local_info(entry.path)


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False  # dangling: listed, and unreadable when it is fetched


def _dropped(name: str, skipped: Counter[str]) -> bool:
    if name in _DROPPINGS or name.startswith("._"):
        skipped["dropping"] += 1
        return True
    return False


# -- remote -----------------------------------------------------------------------------------------------------------


def is_remote(source: str) -> bool:
    return "://" in source and not source.startswith("file://")


def _remote(
    source: str, remote: RemoteSource, options: Mapping[str, Any], skipped: Counter[str], web: WebLimits | None, read: RowReader
) -> Iterator[ObjectInfo]:
    if is_pattern(remote.path):
        pattern = Pattern.parse(remote.path)
        yield from _walk_remote(remote, pattern.root, skipped, pattern)
        return
    single = remote.info(remote.path) if "/" in remote.path else None
    if single is None:
        yield from _walk_remote(remote, remote.path, skipped, None)
    elif is_manifest(remote.path):
        with remote.opened(remote.path) as copy:
            yield from _named_by(source, copy, options, remote.counts, web, read)
    else:
        yield single


def _walk_remote(remote: RemoteSource, root: str, skipped: Counter[str], pattern: Pattern | None) -> Iterator[ObjectInfo]:
    start = root.rstrip("/") + "/" if root else ""
    folders, seen = [start], False
    while folders:
        folder = folders.pop()
        inner: list[str] = []
        for page in remote.pages(folder):
            seen = seen or bool(page.folders or page.objects)
            if any(info.uri.endswith(f"/{OUTPUT_MARK}") for info in page.objects):
                skipped["pagemill_output"] += 1
                inner.clear()
                break
            for name in page.folders:
                names = _names(name, start)
                if names[-1].startswith("."):
                    skipped["dot_folder"] += 1
                elif pattern is None or pattern.may_hold(names):
                    inner.append(name)
            yield from _kept(page.objects, f"{remote.scheme}://{start}", skipped, pattern)
        folders += inner
    if not seen and not remote.is_container():
        raise SourceUnreachable(f"{remote.scheme}://{root}: there is no such object or folder")


def _kept(objects: list[ObjectInfo], start: str, skipped: Counter[str], pattern: Pattern | None) -> Iterator[ObjectInfo]:
    for info in objects:
        if info.uri.endswith("/") and not info.size:
            skipped["folder_key"] += 1
            continue
        names = _names(info.uri, start)
        if (pattern is None or pattern.matches(names)) and not _dropped(names[-1], skipped):
            yield info


def _names(path: str, start: str) -> tuple[str, ...]:
    """The names that lead to a path from where the walk began."""
    return tuple(path.removeprefix(start).removesuffix("/").split("/"))


# -- manifests --------------------------------------------------------------------------------------------------------

_AT_ONCE = 16  # remote objects that are looked at together: a HEAD takes some 20 ms, a manifest may name a million
_CHUNK = 256


def _named_by(
    manifest: str, copy: str, options: Mapping[str, Any], requests: Counter[str] | None, web: WebLimits | None, read: RowReader
) -> Iterator[ObjectInfo]:
    """The objects that a manifest names; `copy`: its bytes on this machine."""
    base = manifest.rpartition("/")[0]
    rows = ((absolute(row.link, base), row) for row in read(manifest, copy))
    remote, in_web = RemoteSources(), WebSource(web) if web is not None else None

    def look(link: str) -> ObjectInfo:
        if not is_remote(link):
            return local_info(os.path.abspath(local_path(link)))
        if in_web is not None and is_web(link):
            return in_web.info(link)
        return remote.of(link, options).info(link.partition("://")[2]) or ObjectInfo(link, None)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look") as threads:
        while some := list(islice(rows, _CHUNK)):
            found = threads.map(look, [link for link, _ in some])
            for info, (_, row) in zip(found, some, strict=True):
                yield replace(info, pages=row.pages, options=row.options, secret=row.number)
    if requests is not None:
        requests.update(remote.counts + (in_web.counts if in_web is not None else Counter()))


def uri_of(link: str) -> str:
    """What the object behind a row's absolute link is called in the ledger."""
    return public(link) if is_remote(link) else local_uri(os.path.abspath(local_path(link)))


def absolute(uri: str, base: str) -> str:
    """A URI of a manifest: one without a scheme that is no absolute path lies beside it."""
    return uri if "://" in uri or uri.startswith("/") else f"{base}/{uri}"


@contextmanager
def opened_manifest(source: str, options: Mapping[str, Any], web: WebLimits | None) -> Iterator[str]:
    """The path of a manifest's bytes on this machine, while the context lasts; of a link that is no manifest: one that names it.

    Raises:
        SourceUnreachable
    """
    if not is_remote(source):
        yield os.path.abspath(local_path(source))
    elif not is_web(source):
        remote = RemoteSource(source, options)
        with remote.opened(remote.path) as copy:
            yield copy
    else:
        with tempfile.NamedTemporaryFile(prefix="pagemill-source-") as file:
            if is_manifest(source):
                assert web is not None
                try:
                    WebSource(web).fetch(source, file.name)
                except (SourceUnreadable, SourceTooLarge) as error:
                    raise SourceUnreachable(str(error)) from error
            else:
                file.write(source.encode("utf-8", "surrogateescape"))
                file.flush()
            yield file.name


def look(uris: Iterable[str], options: Mapping[str, Any], web: WebLimits | None = None) -> dict[str, ObjectInfo | None]:
    """What each of these objects is now; None: it is not there any more, or its web server says nothing of it.

    Raises:
        SourceUnreachable
    """
    remote, in_web = RemoteSources(), WebSource(web) if web is not None else None
    found: dict[str, ObjectInfo | None] = {}
    for uri in uris:
        if in_web is not None and is_web(uri):
            info = in_web.info(uri)
            found[uri] = info if info.etag is not None or info.size is not None else None
        elif is_remote(uri):
            found[uri] = remote.of(uri, options).info(uri.partition("://")[2])
        else:
            path = os.path.abspath(local_path(uri))
            found[uri] = local_info(path) if os.path.lexists(path) else None
    return found
