"""Lanes: an archive split over several jobs, each with a ledger of its own below one output.

Invariant: a URI is in exactly one lane, for ever: which one follows from its name and from the number of lanes, and that is
fixed in `pagemill.json` when the output is made. So two jobs never read one object, and no lane waits for another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

MOST = 1000  # a reader opens the ledger of each


class _Named(Protocol):
    @property
    def uri(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(slots=True, frozen=True)
class Lane:
    """One of `count` lanes, numbered from 0."""

    number: int = 0
    count: int = 1

    @property
    def folder(self) -> str:
        """Key of its ledger's folder."""
        return f"ledger/{self.number}"

    def __str__(self) -> str:
        return f"lane {self.number} of {self.count}"

    def only(self, listing: Iterable[T], skipped: Counter[str]) -> Iterator[T]:
        """What of a listing is in this lane; the rest is counted."""
        if self.count == 1:
            yield from listing
            return
        for info in listing:
            if number_of(info.uri, self.count) == self.number:
                yield info
            else:
                skipped["other_lane"] += 1


def number_of(uri: str, count: int) -> int:
    """The lane of a URI: the same on every machine and in every version."""
    return int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "big") % count
