"""What a source holds: a directory, a glob, one file, or a manifest of URIs; a stream, never sorted or held in memory.

Invariant: names are kept byte for byte. A local object's URI is its absolute path; a path that is not UTF-8 becomes
`file://` with every odd byte percent-encoded, so the two forms cannot be mistaken for each other. A listing that breaks off
raises; it never ends early without a word.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigError, SourceUnreachable
from pipelines.store.objects import ObjectInfo, SourceFs

OUTPUT_MARK = "pagemill.json"
_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "_SUCCESS"})
_MANIFESTS = (".parquet", ".csv", ".txt", ".list")
_URI_COLUMNS = ("uri", "url", "path")
_GLOB_SIGNS = frozenset("*?[")

BATCH = pa.schema(
    [
        ("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string()),
        ("mtime_ns", pa.int64()), ("ctime_ns", pa.int64()), ("inode", pa.int64()),
    ]
)  # fmt: skip


def discover(source: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[ObjectInfo]:
    """Every object of a source; what is left out is counted in `skipped` by reason.

    Raises:
        SourceUnreachable: there is no such source, or its listing broke off.
        ConfigError: a manifest without a column of URIs.
    """
    if _is_remote(source):
        yield from _remote(source, options, skipped)
        return
    path = os.path.abspath(local_path(source))
    if os.path.isdir(path):
        yield from _walk(path, skipped)
    elif os.path.lexists(path):
        if path.lower().endswith(_MANIFESTS):
            yield from _manifest(path, options)
        else:
            yield local_info(path)
    elif _GLOB_SIGNS & set(source):
        for found in glob.iglob(path, recursive=True, include_hidden=True):
            if not os.path.isdir(found) and not _dropped(os.path.basename(found), skipped):
                yield local_info(found)
    else:
        raise SourceUnreachable(f"{source}: there is no such file or folder")


def batched(listing: Iterable[ObjectInfo], size: int = 10_000) -> Iterator[pa.Table]:
    """Tables of schema `BATCH`."""
    remaining = iter(listing)
    while some := list(islice(remaining, size)):
        columns = {name: [getattr(info, name) for info in some] for name in BATCH.names}
        yield pa.table(columns, schema=BATCH)


def prefix_of(source: str) -> str | None:
    """The prefix of all URIs that a complete listing of this source decides about; None: it names objects one by one."""
    if _is_remote(source):
        return None if _GLOB_SIGNS & set(source) or source.lower().endswith(_MANIFESTS) else source.rstrip("/") + "/"
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


def _walk(root: str, skipped: Counter[str]) -> Iterator[ObjectInfo]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            raise SourceUnreachable(f"{local_uri(folder)}: {error.strerror}") from error
        if any(entry.name == OUTPUT_MARK for entry in found):
            skipped["pagemill_output"] += 1
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    skipped["dot_folder"] += 1
                else:
                    folders.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                skipped["link_to_folder"] += 1
            elif not _dropped(entry.name, skipped):
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


def _is_remote(source: str) -> bool:
    return "://" in source and not source.startswith("file://")


def _remote(source: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[ObjectInfo]:
    fs = SourceFs(source, options)
    if _GLOB_SIGNS & set(fs.path):
        yield from fs.glob(fs.path)
        return
    single = fs.info(fs.path) if "/" in fs.path else None
    if single is not None:
        if fs.path.lower().endswith(_MANIFESTS):
            yield from _manifest(source, options)
        else:
            yield single
        return
    outputs: set[str] = set()
    for info in fs.listing():
        folder, _, name = info.uri.rpartition("/")
        below = folder.removeprefix(source.rstrip("/"))
        if name == "":
            skipped["folder_key"] += 1
        elif any(part.startswith(".") for part in below.split("/")):
            skipped["dot_folder"] += 1
        elif name == OUTPUT_MARK:
            outputs.add(folder)
            skipped["pagemill_output"] += 1
        elif outputs and any(info.uri.startswith(output + "/") for output in outputs):
            continue
        elif not _dropped(name, skipped):
            yield info


# -- manifests --------------------------------------------------------------------------------------------------------


def _manifest(manifest: str, options: Mapping[str, Any]) -> Iterator[ObjectInfo]:
    fs = SourceFs(manifest, options)
    base = manifest.rpartition("/")[0]
    for uri in _manifest_uris(manifest, fs):
        full = uri if "://" in uri or uri.startswith("/") else f"{base}/{uri}"
        if _is_remote(full):
            remote = SourceFs(full, options)
            yield remote.info(remote.path) or ObjectInfo(full, None)
        else:
            yield local_info(os.path.abspath(local_path(full)))


def _manifest_uris(manifest: str, fs: SourceFs) -> Iterator[str]:
    content = io.BytesIO()
    fs.fetch(fs.path, content)
    content.seek(0)
    if manifest.lower().endswith(".parquet"):
        file = pq.ParquetFile(content)
        column = _uri_column(manifest, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[column]):
            yield from (value for value in batch.column(0).to_pylist() if value)
        return
    text = io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="")
    if manifest.lower().endswith(".csv"):
        rows = csv.DictReader(text)
        column = _uri_column(manifest, list(rows.fieldnames or []))
        yield from (row[column] for row in rows if row[column])
        return
    yield from (line for line in (raw.strip("\r\n") for raw in text) if line and not line.startswith("#"))


def _uri_column(manifest: str, names: list[str]) -> str:
    for name in _URI_COLUMNS:
        if name in names:
            return name
    raise ConfigError(f"{manifest}: a manifest needs a column named uri, url or path; it has {', '.join(names)}")
