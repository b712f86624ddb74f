"""Whether a cluster's head is still there, looked at all through a run.

Invariant: a head that is gone ends the run with `ClusterLost`, committed and reported. Ray itself waits for a minute in native
code, with all that ask it anything, and then ends the driver on the spot: exit code 1 and not a word on the terminal (seen).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from pipelines.errors import ClusterLost

_EVERY_S = 1.0
_ANSWER_S = 10.0


def listens(address: str) -> OSError | None:
    """Why nothing listens at HOST:PORT; None: something does, or Ray has to know what else an address means."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
        return None
    except OSError as error:
        return error


class HeadWatch:
    """A thread of its own. Tells `lost` once, when nothing listened at `address` for `patience_s`."""

    def __init__(self, address: str, patience_s: float, lost: Callable[[ClusterLost], None], every_s: float = _EVERY_S) -> None:
        self._address, self._patience_s, self._lost, self._every_s = address, patience_s, lost, every_s
        self.gone = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="head", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        since: float | None = None
        while not self._stop.wait(self._every_s):
            error = listens(self._address)
            if error is None:
                since = None
                continue
            since = since or time.monotonic()
            if time.monotonic() - since >= self._patience_s:
                self.gone = True
                self._lost(ClusterLost(f"the head of the Ray cluster at {self._address} is gone: {error}"))
                return
