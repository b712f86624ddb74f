"""P2 with several drivers: started at once on one output, exactly one writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import Driver
from tests.faults.harness import SLOW, ends_like
from tests.s3server import S3


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_three_drivers_at_once_on_one_output(
    driver: Driver, source: Path, undisturbed: pa.Table, tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    s3: S3 | None = request.getfixturevalue("s3") if where == "s3" else None
    output, options = (s3.bucket() + "/out", s3.options()) if s3 else (str(tmp_path / "out"), None)
    settings = SLOW | ({"store.storage_options": json.dumps(options)} if options else {})
    started = [driver.start(str(source), output, settings=settings) for _ in range(3)]
    ended = [(process.communicate(timeout=900)[0], process.returncode) for process in started]
    assert sorted(code for _, code in ended) == [0, 6, 6], ended
    assert all("is writing this output" in out for out, code in ended if code == 6)
    ends_like(undisturbed, output, source, options)
