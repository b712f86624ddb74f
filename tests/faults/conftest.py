"""Fixtures of the tests of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.disks import SmallDisk
from tests.faults.harness import Nodes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, int], SmallDisk]]:
    """Makes file systems of so many KiB below the test's folder."""
    made: list[SmallDisk] = []

    def make(name: str, kib: int) -> SmallDisk:
        made.append(SmallDisk(tmp_path / name, kib))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


@pytest.fixture
def cluster() -> Iterator[Callable[[int, int], Nodes]]:
    made: list[Nodes] = []

    def make(others: int, cpus: int) -> Nodes:
        made.append(Nodes(others, cpus))
        return made[-1]

    yield make
    for nodes in made:
        nodes.close()
