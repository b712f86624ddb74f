"""P1 and P2 with lanes: two drivers at once, one of them killed, on disk and on S3; read and audited as one."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

import pagemill
from pipelines.errors import ExitCode
from pipelines.ingest import ingest
from pipelines.lanes import number_of
from pipelines.store.audit import audit
from pipelines.store.reading import comparable
from tests.builders import archive, text_pdf, text_pdf_in_lane
from tests.conftest import Call, Driver, inline, inline_config
from tests.e2e.test_resume import kill_soon, parts
from tests.e2e.test_s3 import fill
from tests.readers import hurried
from tests.s3server import S3

SLOW = {"recognize.engine": "tests.readers:SlowReader", "source.span_pages": 4, "ray.workers": 1}


@pytest.mark.timeout(1200)
def test_two_drivers_at_once_and_one_is_killed(driver: Driver, tmp_path: Path) -> None:
    source, output = tmp_path / "in", str(tmp_path / "out")
    for lane, sizes in enumerate(((9, 1, 2), (25, 1, 2))):
        for number, pages in enumerate(sizes):
            text_pdf_in_lane(source, f"lane-{lane}-document-{number}", pages, lane, 2)
    with hurried():
        inline(source, tmp_path / "undisturbed", recognize__engine="tests.readers:SlowReader", raster__engine="pymupdf")
    first, second = (driver.start(str(source), output, "--lanes=2", f"--lane={lane}", settings=dict(SLOW)) for lane in (0, 1))
    assert kill_soon(second, "driver", 3, lambda: parts(output, None), random.Random(1))
    second.communicate(timeout=400)
    out, _ = first.communicate(timeout=400)
    assert first.returncode == 0, out
    half = audit(output)
    assert not half.ok
    assert half.pending > 0 or half.sources < 6
    with hurried():
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


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_one_lanes_night_is_held_back_and_published(driver: Driver, tmp_path: Path, call: Call) -> None:
    """Two nights at once, one of them with a reader that drifted: only what its lane read waits, until it is published."""
    source, output = tmp_path / "in", str(tmp_path / "out")
    known = archive(tmp_path / "known", {"known": 1})
    text_pdf_in_lane(source, "first-zero", 1, 0, 2)
    changed = text_pdf_in_lane(source, "first-one", 1, 1, 2)
    lines = {"canary__documents": known, "recognize__engine": "tests.readers:LineReader"}
    for lane in (0, 1):
        config = inline_config(output, **lines)
        first = ingest(str(source), output, config, inline=True, lanes=2, lane=lane, canaries=True)
        assert first.summary.published
    text_pdf_in_lane(source, "second-zero", 2, 0, 2)
    text_pdf_in_lane(source, "second-one", 2, 1, 2)
    text_pdf(changed, 1, "first-one, changed")
    settings: dict[str, object] = {"canary.documents": known, "ray.workers": 1, "raster.engine": "pypdfium2"}
    jobs = [
        driver.start(str(source), output, f"--lane={lane}", job="nightly",
                     settings=settings | {"recognize.engine": f"tests.readers:{reader}Reader"})
        for lane, reader in enumerate(("Line", "Shouting"))
    ]  # fmt: skip
    ends = [job.communicate(timeout=400)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [ExitCode.OK, ExitCode.UNPUBLISHED], ends
    held = re.search(rf"pagemill publish {re.escape(output)} (\S+)", ends[1])
    assert held is not None, ends[1]

    published = [row["markdown"].strip() for row in pagemill.read(output, "pages", published=True).to_pylist()]
    assert sorted({text.split()[1] for text in published}) == ["first-one", "first-zero", "second-zero"]
    assert not any("changed" in text or text.isupper() for text in published)
    assert pagemill.read(output, "pages").num_rows == 6
    assert audit(output, map(str, source.iterdir())).ok
    code, out = call("show", output, str(changed))
    assert (code, "first-one page 0" in out, held[1] in out) == (0, True, True), out
    code, out = call("status", output)
    assert (code, f"held back 2 documents or newer readings of them: of run {held[1]}" in out) == (0, True), out
    code, out = call("canary", output)
    assert (code, out.count("NOT PUBLISHED"), out.count("published, baseline")) == (0, 1, 2), out

    # while the other lane's driver runs, without a claim of its own; and for good: also when that run is asked again
    other = driver.start(str(source), output, "--lane=0", job="nightly", settings=settings)
    for _ in range(2):
        code, out = driver.run(output, held[1], job="publish")
        assert code == 0, out
    ended, _ = other.communicate(timeout=400)
    assert other.returncode == 0, ended
    texts = [row["markdown"].strip() for row in pagemill.read(output, "pages", published=True).to_pylist()]
    assert len(texts) == 6
    assert sum(text.isupper() for text in texts) == 3
    code, out = call("canary", output)
    assert "NOT PUBLISHED" not in out
    assert audit(output, map(str, source.iterdir())).ok
    for lane, reader in enumerate(("Line", "Shouting")):  # as it drifted, so it would again: the baseline is each lane's own
        text_pdf_in_lane(source, f"third-{lane}", 1, lane, 2)
        config = inline_config(output, **(lines | {"recognize__engine": f"tests.readers:{reader}Reader"}))
        again = ingest(str(source), output, config, inline=True, lane=lane, canaries=True)
        assert again.summary.published is (reader == "Line")


def _rows(output: str) -> list[dict[str, object]]:
    return list(comparable(pagemill.read(output, "pages")).to_pylist())
