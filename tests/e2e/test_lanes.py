"""P1 and P2 with lanes: two drivers at once, one of them killed, on disk and on S3; read and audited as one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import pagemill
from pipelines.lanes import number_of
from pipelines.store.audit import audit
from pipelines.store.reading import comparable
from tests.builders import text_pdf_in_lane
from tests.conftest import Driver, inline
from tests.e2e.test_resume import kill_soon, parts
from tests.e2e.test_s3 import fill
from tests.s3server import S3

SLOW = {"recognize.engine": "tests.readers:SlowReader", "source.span_pages": 4, "ray.workers": 1}


@pytest.mark.timeout(1200)
def test_two_drivers_at_once_and_one_is_killed(driver: Driver, tmp_path: Path) -> None:
    source, output = tmp_path / "in", str(tmp_path / "out")
    for lane, sizes in enumerate(((9, 1, 2), (25, 1, 2))):
        for number, pages in enumerate(sizes):
            text_pdf_in_lane(source, f"lane-{lane}-document-{number}", pages, lane, 2)
    inline(source, tmp_path / "undisturbed", recognize__engine="tests.readers:SlowReader", raster__engine="pymupdf")
    first, second = (driver.start(str(source), output, "--lanes=2", f"--lane={lane}", settings=dict(SLOW)) for lane in (0, 1))
    assert kill_soon(second, "driver", 3, lambda: parts(output, None), random.Random(1))
    second.communicate(timeout=400)
    out, _ = first.communicate(timeout=400)
    assert first.returncode == 0, out
    half = audit(output)
    assert not half.ok
    assert half.pending > 0 or half.sources < 6
    code, out = driver.run(str(source), output, "--lane=1", settings=dict(SLOW))
    assert code == 0, out
    assert _rows(output) == _rows(str(tmp_path / "undisturbed"))
    result = audit(output, map(str, source.iterdir()))
    assert result.ok, result.problems
    assert (result.lanes, result.sources, result.pages) == (2, 6, 40)


@pytest.mark.long  # `make test` has the same on disk; the ledger's own tests run on both
@pytest.mark.timeout(1200)
def test_two_drivers_at_once_on_s3(driver: Driver, s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket()
    names = [next(n for n in (f"{word}{k}" for k in range(99)) if number_of(f"{bucket}/in/{n}.pdf", 2) == lane)
             for lane in (0, 1) for word in ("a", "b", "c")]  # fmt: skip
    uris = fill(s3, bucket, dict.fromkeys(names, 3))
    options = json.dumps(s3.options())
    settings: dict[str, object] = {"source.storage_options": options, "store.storage_options": options, "ray.workers": 1}
    jobs = [driver.start(f"{bucket}/in", f"{bucket}/out", "--lanes=2", f"--lane={lane}", settings=settings) for lane in (0, 1)]
    for job in jobs:
        out, _ = job.communicate(timeout=400)
        assert job.returncode == 0, out
    result = audit(f"{bucket}/out", uris, s3.options())
    assert result.ok, result.problems
    assert (result.lanes, result.sources, result.pages) == (2, 6, 18)
    rows = pagemill.read(f"{bucket}/out", "pages", storage_options=s3.options())
    assert rows.num_rows == 18
    code, out = driver.run(f"{bucket}/in", f"{bucket}/out", "--lanes=3", "--lane=0", settings=settings)
    assert (code, "has 2 lanes" in out) == (2, True), out


def _rows(output: str) -> list[dict[str, object]]:
    return list(comparable(pagemill.read(output, "pages")).to_pylist())
