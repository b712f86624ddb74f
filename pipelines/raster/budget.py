"""Allowances of time that hostile pages may waste: a span's, and a document's on this node.

Invariant: only pages that end in a deadline, a memory limit or a crash are charged, so a long healthy document never runs
out; and each such page is charged something, so a hostile one always does.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

# A page that crashes at once is charged a tenth of a deadline: a node tries at most 200 such pages of a document.
LEAST_SHARE = 0.1


class SpanBudget:
    """Of one span, in this process. Seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._spent = 0.0

    def charge(self, seconds: float) -> None:
        self._spent += seconds

    def exhausted(self) -> bool:
        return self._spent >= self._limit_s


class DocumentBudget:
    """Of one document on one node, shared by its processes: a number in a file beside the cached copy, under a lock."""

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path = path
        self._limit_s = limit_s

    def spent(self) -> float:
        try:
            return float(self._path.read_text(encoding="ascii") or 0)
        except (FileNotFoundError, ValueError):
            return 0.0

    def charge(self, seconds: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = os.read(descriptor, 64).decode("ascii", "replace")
            total = (float(before) if before.replace(".", "", 1).isdigit() else 0.0) + seconds
            os.pwrite(descriptor, f"{total:020.3f}".encode(), 0)
        finally:
            os.close(descriptor)

    def exhausted(self) -> bool:
        return self.spent() >= self._limit_s
