"""An OUTPUT as a place: what makes it one, and who may write it.

Invariant: a folder that is not empty and not ours is never written to; one of a newer major format version neither.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time

from pipelines.config import StoreConfig
from pipelines.errors import ConfigError, OutputUnwritable, StoreUnavailable
from pipelines.lanes import MOST, Lane
from pipelines.schema import FORMAT_VERSION
from pipelines.store.objects import ObjectStore

MARK = "pagemill.json"


def new_run_id() -> str:
    """Ordered by time to the second, unique beyond: 20261124T170301Z-5f2a1c."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def is_run_id(text: str) -> bool:
    """Whether it may stand in the name of a file: of a ledger that somebody made up, it need not."""
    return re.fullmatch(r"[\w.-]{1,100}", text, re.ASCII) is not None and not text.startswith(".")


def open_store(output: str, config: StoreConfig) -> ObjectStore:
    return ObjectStore(output, config.storage_options, config.retries, config.timeout_s)


def open_output(output: str, config: StoreConfig, lanes: int = 1) -> ObjectStore:
    """Opens an output for writing, and makes it one if there is nothing yet.

    Args:
        lanes: of an output that is made now.

    Raises:
        OutputUnwritable: no permission, or a store that cannot fence.
        ConfigError: something else lives there, or a newer pagemill's output.
    """
    store = open_store(output, config)
    local = store.local_path("")
    if local is not None and local.exists() and not os.access(local, os.W_OK):
        raise OutputUnwritable(f"{output}: no permission to write")
    is_new = _is_new(store)
    store.check_writable()
    if is_new:
        store.put_new(MARK, json.dumps({"format": FORMAT_VERSION, "lanes": lanes}).encode())
        check_format(store)
    return store


def choose_lane(store: ObjectStore, lanes: int | None, lane: int | None) -> Lane:
    """The lane that a job writes.

    Args:
        lanes: how many the user believes that there are; None: as many as there are.
        lane: which one; None: the only one.

    Raises:
        ConfigError: another number, or no such lane.
    """
    count = check_format(store)
    if lanes is not None and lanes != count:
        raise ConfigError(
            f"{store.root} has {count} lanes, fixed when it was made, and {lanes} are asked for: --lanes {count}, or a new output"
        )
    if lane is None and count > 1:
        raise ConfigError(f"{store.root} has {count} lanes, each for a job of its own: --lane 0 to --lane {count - 1}")
    if not 0 <= (lane or 0) < count:
        raise ConfigError(f"{store.root} has no lane {lane}: its {count} lanes are numbered from 0")
    return Lane(lane or 0, count)


def lanes_of(store: ObjectStore) -> list[Lane]:
    """All lanes of an output; of one that is not there yet, one.

    Raises:
        ConfigError
    """
    try:
        count = check_format(store)
    except FileNotFoundError:
        count = 1
    return [Lane(number, count) for number in range(count)]


def look_at(output: str, config: StoreConfig) -> ObjectStore:
    """The same for reading what an output holds, were it nothing yet. Writes nothing.

    Raises:
        ConfigError
    """
    store = open_store(output, config)
    _is_new(store)
    return store


def _is_new(store: ObjectStore) -> bool:
    """Whether nothing is there; False: an output of ours.

    Raises:
        ConfigError: something else.
    """
    local = store.local_path("")
    if local is not None and local.exists() and not local.is_dir():
        raise ConfigError(f"{store.root} is a file; name a folder")
    try:
        check_format(store)
        return False
    except FileNotFoundError:
        foreign = next((key for key in store.list() if not key.startswith(".pagemill-probe-")), None)
    if foreign is not None:
        with contextlib.suppress(FileNotFoundError):
            check_format(store)
            return False  # another driver made it in between
        raise ConfigError(f"{store.root} is not empty and not a pagemill output (it holds {foreign}); name a new folder")
    return True


def open_existing(output: str, config: StoreConfig) -> ObjectStore:
    """Opens an output that is there, to look after it.

    Raises:
        ConfigError: it is none, or a newer pagemill's.
    """
    store = open_store(output, config)
    try:
        check_format(store)
    except FileNotFoundError:
        raise no_output(output, store) from None
    return store


def no_output(output: str, store: ObjectStore) -> ConfigError:
    """Why there is none."""
    local = store.local_path("")
    is_there = local is None or local.is_dir()
    return ConfigError(f"{output} is not a pagemill output: {f'it has no {MARK}' if is_there else 'there is no such folder'}")


def open_target(target: str, config: StoreConfig) -> ObjectStore:
    """A folder or URI for results in another form, which can be written.

    Raises:
        OutputUnwritable
    """
    store, key = open_store(target, config), f".pagemill-probe-{secrets.token_hex(8)}"
    try:
        store.put(key, b"")
    except (OSError, StoreUnavailable) as error:
        raise OutputUnwritable(f"cannot write below {store.root}: {error}") from error
    store.delete(key)
    return store


def check_format(store: ObjectStore) -> int:
    """The number of lanes.

    Raises:
        FileNotFoundError: not an output, or a file.
        ConfigError: a newer major version, or not readable. OutputUnwritable: no permission. StoreUnavailable
    """
    try:
        mark = json.loads(store.get(MARK))
        version, lanes = str(mark["format"]), int(mark.get("lanes", 1))
        newer = int(version.split(".")[0]) > int(FORMAT_VERSION.split(".")[0])
    except NotADirectoryError as error:
        raise FileNotFoundError(str(error)) from error
    except StoreUnavailable as error:
        if isinstance(error.__cause__, PermissionError):
            raise OutputUnwritable(f"{store.root}: no permission to read {MARK}: {error.__cause__}") from None
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{store.root}/{MARK} is damaged: {error}") from None
    if newer:
        raise ConfigError(f"{store.root} has format {version}; this pagemill writes {FORMAT_VERSION}: use a newer one")
    if not 1 <= lanes <= MOST:
        raise ConfigError(f"{store.root}/{MARK} is damaged: {lanes} lanes")
    return lanes
