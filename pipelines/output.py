"""An OUTPUT as a place: what makes it one, and who may write it.

Invariant: a folder that is not empty and not ours is never written to; one of a newer major format version neither.
"""

from __future__ import annotations

import json
import os
import secrets
import time

from pipelines.config import StoreConfig
from pipelines.errors import ConfigError, OutputUnwritable
from pipelines.schema import FORMAT_VERSION
from pipelines.store.objects import ObjectStore

MARK = "pagemill.json"


def new_run_id() -> str:
    """Ordered by time to the second, unique beyond: 20261124T170301Z-5f2a1c."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def open_store(output: str, config: StoreConfig) -> ObjectStore:
    return ObjectStore(output, config.storage_options, config.retries, config.timeout_s)


def open_output(output: str, config: StoreConfig) -> ObjectStore:
    """Opens an output for writing, and makes it one if there is nothing yet.

    Raises:
        OutputUnwritable: no permission, or a store that cannot fence.
        ConfigError: something else lives there, or a newer pagemill's output.
    """
    store = open_store(output, config)
    local = store.local_path("")
    if local is not None and local.exists() and not os.access(local, os.W_OK):
        raise OutputUnwritable(f"{output}: no permission to write")
    try:
        check_format(store)
    except FileNotFoundError:
        foreign = next((key for key in store.list() if not key.startswith(".pagemill-probe-")), None)
        if foreign is not None:
            raise ConfigError(
                f"{output} is not empty and not a pagemill output (it holds {foreign}); name a new folder"
            ) from None
        store.check_writable()
        store.put_new(MARK, json.dumps({"format": FORMAT_VERSION, "lanes": 1}).encode())
        check_format(store)
    else:
        store.check_writable()
    return store


def check_format(store: ObjectStore) -> None:
    """
    Raises:
        FileNotFoundError: not an output. ConfigError: a newer major version, or not readable.
    """
    try:
        version = str(json.loads(store.get(MARK))["format"])
        newer = int(version.split(".")[0]) > int(FORMAT_VERSION.split(".")[0])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{store.root}/{MARK} is damaged: {error}") from None
    if newer:
        raise ConfigError(f"{store.root} has format {version}; this pagemill writes {FORMAT_VERSION}: use a newer one")
