"""A machine without PyMuPDF, on which every process of a run writes down whom it calls.

Python imports this by itself where its folder is on PYTHONPATH: in the driver, Ray's workers and their children alike.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import socket
import sys
from collections.abc import Sequence
from types import ModuleType

_HIDDEN = ("pymupdf", "fitz", "pymupdf4llm")


class _NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in _HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the test)", name=name)
        return None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        if event in ("socket.connect", "socket.sendto"):
            used = arguments[0]
            if isinstance(used, socket.socket) and used.family == socket.AF_UNIX:
                return
            place = arguments[1]
            called = place[0] if isinstance(place, tuple) else place
        else:
            called = arguments[0]
        with open(os.environ["PAGEMILL_TEST_CALLS"], "a", encoding="utf-8") as file:
            file.write(f"{event} {called}\n")


sys.meta_path.insert(0, _NotInstalled())
if "PAGEMILL_TEST_CALLS" in os.environ:
    sys.addaudithook(_watch)
