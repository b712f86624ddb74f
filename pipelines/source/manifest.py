"""Manifests: files that name the objects of a source, one by one.

Invariant: a stream; a URI is passed on as it stands, byte for byte. A file that is not what its name says is an error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigError

_ENDINGS = (".parquet", ".csv", ".txt", ".list")
_COLUMNS = ("uri", "url", "path")


def is_manifest(name: str) -> bool:
    """By its name: a text file has no content to tell it by."""
    return name.lower().endswith(_ENDINGS)


def manifest_uris(manifest: str, copy: str) -> Iterator[str]:
    """The URIs that a Parquet or CSV manifest has in its column `uri`, `url` or `path`, or a text one in its lines.

    Args:
        manifest: its name, for the ending and for messages.
        copy: path of its bytes on this machine.

    Raises:
        ConfigError: no such column, or not readable as what its ending says.
    """
    try:
        if manifest.lower().endswith(".parquet"):
            yield from _of_parquet(manifest, copy)
        elif manifest.lower().endswith(".csv"):
            yield from _of_csv(manifest, copy)
        else:
            yield from _of_text(copy)
    except (pa.ArrowException, csv.Error, OSError) as error:
        raise ConfigError(f"{manifest}: not a readable manifest: {error}") from error


def _of_parquet(manifest: str, copy: str) -> Iterator[str]:
    with pq.ParquetFile(copy) as file:
        column = _column(manifest, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[column]):
            yield from (str(value) for value in batch.column(0).to_pylist() if value)


def _of_csv(manifest: str, copy: str) -> Iterator[str]:
    with open(copy, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = csv.DictReader(text)
        column = _column(manifest, list(rows.fieldnames or []))
        yield from (row[column] for row in rows if row[column])


def _of_text(copy: str) -> Iterator[str]:
    with open(copy, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from (line for line in (raw.strip("\r\n") for raw in text) if line and not line.startswith("#"))


def _column(manifest: str, names: list[str]) -> str:
    for name in _COLUMNS:
        if name in names:
            return name
    raise ConfigError(f"{manifest}: a manifest needs a column named uri, url or path; it has {', '.join(names)}")
