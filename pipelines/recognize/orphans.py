"""An engine's own process ends when the process that started it does.

Ray kills actors without asking them, and vLLM's engine process, a child of the actor, would then hold the card's memory for
ever. Invariant: only a process whose parent announced itself in the environment watches; nobody else is ever ended.
"""

from __future__ import annotations

import os
import threading
import time

_OWNER = "PAGEMILL_ENGINE_OWNER"
_POLL_S = 0.5


def announce() -> None:
    """Called by the process that is about to start an engine."""
    os.environ[_OWNER] = str(os.getpid())


def end_with_owner() -> None:
    """Called in the engine's process: from now on it ends within a second of its owner."""
    owner = int(os.environ.get(_OWNER, "0"))
    if owner and owner == os.getppid():
        threading.Thread(target=_watch, args=(owner,), name="owner", daemon=True).start()


def _watch(owner: int) -> None:
    while os.getppid() == owner:  # an orphan gets another parent
        time.sleep(_POLL_S)
    os._exit(1)
