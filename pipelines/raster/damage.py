"""Signs that a PDF is not whole, read from its bytes: independent of how much a library repairs without a word.

Invariant: a file that lost its end or whose cross-reference does not point where it should is flagged `repaired`, never
taken as plain ok. Only the ends of the file are read.
"""

from __future__ import annotations

import re
from pathlib import Path

_TAIL = 16 * 1024
_START = re.compile(rb"startxref\s+(\d+)\s+%%EOF")


def is_damaged(path: str | Path) -> bool:
    """Whether the last `startxref` is missing or points at neither an xref table nor an xref stream."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        found = _START.findall(file.read())
        if not found:
            return True
        file.seek(0)
        header = max(0, file.read(64 * 1024).find(b"%PDF-"))  # offsets may count from the header (junk before it)
        offset = int(found[-1])
        for at in {offset, offset + header}:
            file.seek(min(at, size))
            if re.match(rb"\s*(xref|\d+\s+\d+\s+obj)", file.read(32)):
                return False
        return True


def has_junk_behind(path: str | Path) -> bool:
    """Whether more than 1 KiB follows the last `%%EOF`."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    return len(tail) - tail.rfind(b"%%EOF") > 1024 + len(b"%%EOF")
