"""Signs that a PDF is not whole, read from its bytes: independent of how much a library repairs without a word.

Invariant: a file that lost its end or whose cross-reference does not point where it should is flagged `repaired`, never
taken as plain ok. Only the ends of the file are read.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import BinaryIO

_TAIL = 16 * 1024
_START = re.compile(rb"startxref\s+(\d+)\s+%%EOF")
_TABLE = re.compile(rb"\s*xref\b")
_ENTRY = re.compile(rb"(\d{10}) \d{5} n")
_ENTRIES = 16  # of a cross-reference table that are looked at


def is_damaged(path: str | Path) -> bool:
    """Whether the last `startxref` is missing, or points at neither an xref stream nor an xref table that points at objects."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        found = _START.findall(file.read())
        if not found:
            return True
        file.seek(0)
        header = max(0, file.read(64 * 1024).find(b"%PDF-"))  # offsets may count from the header (junk before it)
        offset = int(found[-1])
        return not any(_leads_somewhere(file, at, size, header) for at in {offset, offset + header})


def _leads_somewhere(file: BinaryIO, at: int, size: int, header: int) -> bool:
    """Whether a cross-reference stands there, and the first entries of a table point at objects."""
    file.seek(min(at, size))
    found = file.read(32 + 20 * _ENTRIES)
    if re.match(rb"\s*\d+\s+\d+\s+obj", found):
        return True
    if not (head := _TABLE.match(found)):
        return False
    for entry in _ENTRY.finditer(found, head.end()):
        place = int(entry.group(1))
        if place == 0:
            continue  # how some writers say that a number is not used
        places = (place, place + header)
        if not any(_is_object(file, min(at, size)) for at in places):
            return False
    return True


def _is_object(file: BinaryIO, at: int) -> bool:
    file.seek(at)
    return re.match(rb"\s*\d+\s+\d+\s+obj", file.read(32)) is not None


def has_junk_behind(path: str | Path) -> bool:
    """Whether more than 1 KiB follows the last `%%EOF`."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    return len(tail) - tail.rfind(b"%%EOF") > 1024 + len(b"%%EOF")


def names_encryption(path: str | Path) -> bool:
    """Whether a trailer, or what could be one, names an encryption dictionary."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return content.find(b"/Encrypt") >= 0
