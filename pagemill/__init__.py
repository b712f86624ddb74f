"""pagemill: archives of documents to Parquet and Markdown. What a program imports to read an output back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.store.reading import Output, What

if TYPE_CHECKING:
    import duckdb

__version__ = version("pagemill")
__all__ = ["Output", "__version__", "read", "read_batches", "views"]


def read(
    output: str,
    what: What,
    *,
    columns: Sequence[str] | None = None,
    history: bool = False,
    published: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Live `pages`, `blocks`, `documents` or `sources` of an output, or the `versions` of its URIs, ordered by identity.

    Args:
        history: everything that was ever committed, not only what is live.
        published: without what runs read whose canaries drifted, until `pagemill publish`.

    Raises:
        pipelines.errors.ConfigError: not an output.
    """
    with Output(output, storage_options, published=published) as opened:
        return opened.read(what, columns, history)


def read_batches(
    output: Output, what: What, *, columns: Sequence[str] | None = None, history: bool = False
) -> pa.RecordBatchReader:
    """The same, as a stream, for what does not fit into memory; `output` stays open while it is read."""
    return output.read_batches(what, columns, history)


def views(con: duckdb.DuckDBPyConnection, output: Output, *, published: bool = True) -> None:
    """Creates pagemill_pages, _blocks, _documents, _sources and _versions in a DuckDB connection; keep `output` open.

    Args:
        published: without what runs read whose canaries drifted, until `pagemill publish`; False: everything.
    """
    output.install(con, "pagemill_", published)
