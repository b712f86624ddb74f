"""Whether a ledger is all there. Commits are numbered without gaps and never deleted, and a reader stops at the first number
that is absent: what lies behind a lost one is seen by nobody, and its parts look like orphans.

Invariant: a commit that a driver creates meanwhile is never taken for a gap: a number is called missing only when it is still
absent after a later one was listed.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence

from pipelines.errors import DamagedOutput
from pipelines.store.inventory import Inventory
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.segments import commit_key

_COMMIT = re.compile(r"ledger/(\d+)/(\d{8,})\.parquet", re.ASCII)


def commits_there(store: ObjectStore) -> dict[int, array[int]]:
    """Numbers of the commits by lane, as the store lists them: 8 bytes each."""
    found: dict[int, array[int]] = {}
    for stored in Inventory(store).below("ledger"):
        if match := _COMMIT.fullmatch(stored.key):
            found.setdefault(int(match[1]), array("q")).append(int(match[2]))
    return found


def find_gaps(store: ObjectStore, ledgers: Sequence[Ledger]) -> Iterator[str]:
    """What is missing, for people.

    Args:
        ledgers: of all lanes, as far as they can be read (`refresh`).
    """
    if not any(ledger.files for ledger in ledgers) and next(iter(store.list("pages")), None) is not None:
        yield "ledger: there is none, but there are parts, of which it says what they are"
    found = commits_there(store)
    for ledger in ledgers:
        behind = [number for number in found.get(ledger.lane.number, ()) if number > ledger.next_number]
        missing = commit_key(ledger.lane.folder, ledger.next_number)
        if behind and not store.exists(missing):
            yield f"{missing}: missing, but there are {len(behind)} commits behind it, up to number {max(behind)}"


def refuse_gaps(store: ObjectStore, ledgers: Sequence[Ledger]) -> None:
    """Before anything is deleted because nothing names it.

    Raises:
        DamagedOutput
    """
    for words in find_gaps(store, ledgers):
        raise DamagedOutput(f"{words}. Restore it from a backup; nothing was deleted")
