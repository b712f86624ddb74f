"""Whether a cluster's head, and the raylet of this node, are still there, looked at all through a run.

Invariant: where one of them is gone the run ends with `ClusterLost`, committed and reported. Ray itself ends the driver on the
spot, with exit code 1: a minute after a head is gone, in which it waits in native code with all that ask it anything, and not a
word on the terminal; some 13 s after the raylet is (both seen).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(slots=True, frozen=True)
class End:
    """A process of the cluster without which a driver cannot go on, and where it listens."""

    name: str
    address: str  # HOST:PORT
    patience_s: float  # how long it may be away


class HeadWatch:
    """A thread of its own. Tells `lost` once, when nothing listened at one of the ends for as long as it may be away."""

    def __init__(self, ends: Sequence[End], lost: Callable[[ClusterLost], None], every_s: float = _EVERY_S) -> None:
        self._ends, self._lost, self._every_s = ends, lost, every_s
        self.gone = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="head", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        since: dict[str, float] = {}  # by name: when an end was first not there
        while not self._stop.wait(self._every_s):
            for end in self._ends:
                error = listens(end.address)
                if error is None:
                    since.pop(end.name, None)
                elif time.monotonic() - since.setdefault(end.name, time.monotonic()) >= end.patience_s:
                    self.gone = True
                    self._lost(ClusterLost(f"{end.name} at {end.address} is gone: {error}"))
                    return
