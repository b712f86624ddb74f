"""P2 on several nodes: whole nodes die, with their workers and what their object stores held."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import Driver
from tests.faults.harness import SLOW, Nodes, ends_like, wait_for


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_node_that_dies_costs_time_and_no_page(
    cluster: Callable[[int, int], Nodes], source: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    """In one run: its blocks are read again on the other node."""
    nodes, output = cluster(2, 2), str(tmp_path / "out")
    driver = Driver(nodes.address, tmp_path / "cache")
    process = driver.start(str(source), output, settings=SLOW)
    wait_for(lambda: list(Path(output).glob("pages/*.parquet")), process, "the first part")
    nodes.kill(nodes.working()[0])
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    (report,) = Path(output).glob("runs/*/report.json")
    assert json.loads(report.read_text("utf-8"))["graphs"] == 1, out  # tries are left when Ray knows that the node is gone
    ends_like(undisturbed, output, source)
