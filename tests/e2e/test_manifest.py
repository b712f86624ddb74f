"""A manifest through Ray: options, a password, page ranges and an http link reach the workers that need them, and no file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pagemill
from pipelines.store.audit import audit
from tests.builders import drawn_pdf, locked_pdf, text_at
from tests.conftest import Driver
from tests.security.test_secrets import stored
from tests.source.test_manifest import pages, said, written
from tests.source.test_web import Site, served

PASSWORD, TOKEN = "zqSec-opens", "zqSec-signs"


@pytest.fixture
def web() -> Iterator[Site]:
    with served() as site:
        yield site


@pytest.mark.timeout(900)
def test_each_document_is_opened_and_read_as_its_row_says(driver: Driver, web: Site, tmp_path: Path) -> None:
    drawn = ["\n".join(text_at(20, y, f"at {y}") for y in (170, 100, 30))]
    (tmp_path / "in").mkdir()
    for name, count in (("hot", 1), ("plain", 5)):
        (tmp_path / "in" / f"{name}.pdf").write_bytes(drawn_pdf(drawn * count, extra=b"%% of " + name.encode() + b"\n"))
    (tmp_path / "in" / "locked.pdf").write_bytes(locked_pdf([f"locked {page}" for page in range(4)], PASSWORD))
    web.files["/far.pdf"] = drawn_pdf(drawn, extra=b"%% far\n")
    columns = {
        "uri": ["hot.pdf", "plain.pdf", "locked.pdf", web.link(f"/far.pdf?X-Amz-Signature={TOKEN}")],
        "pages": [None, "2-3,5", "4", None], "password": [None, None, PASSWORD, None],
        "temperature": [0.5, None, None, 0.25], "max_pixels": [None, None, 200_000, None],
    }  # fmt: skip
    manifest, output = written(tmp_path / "in" / "m.parquet", columns), tmp_path / "out"
    settings: dict[str, object] = {
        "recognize.engine": "tests.engines:Asked", "layout.engine": "tests.engines:Bands", "raster.dpi": 72,
        "recognize.text_layer": "off", "source.span_pages": 1, "observe.report_pages": 7, "observe.log_level": "debug",
        "ray.workers": 1,
    }  # fmt: skip
    code, out = driver.run(str(manifest), str(output), settings=settings)
    assert code == 0, out
    assert pages(output) == {"hot": [0], "plain": [1, 2, 4], "locked": [3], "far": [0]}
    assert said(output) == {"hot": "0.5 1003520", "plain": "0.0 1003520", "locked": "0.0 200000", "far": "0.25 1003520"}
    result = audit(str(output))
    assert (result.ok, result.pages, result.left_out) == (True, 6, 5), result.problems
    assert len({row["fingerprint"] for row in pagemill.read(str(output), "pages").to_pylist()}) == 4
    assert web.seen["GET", "/far.pdf"] == 1  # one node, one GET: for probing, reading and its picture
    (html,) = [path.read_text() for path in output.glob("runs/*/report.html")]
    assert html.count("data:image/webp") == 12
    told = [("terminal", out), *stored(str(output), {})]
    assert [name for name, text in told if "zqSec" in text] == []

    # read again from the ledger alone: what needs its row is left as it was, the others keep their options
    (tmp_path / "cache").rename(tmp_path / "another-node")
    again = [str(output), "--where=true"]
    code, out = driver.run(*again, settings=settings, job="reprocess")
    assert code == 3, out
    revisions = {row["uris"][0]: row["revision"] for row in pagemill.read(str(output), "documents").to_pylist()}
    assert {Path(uri).stem: number for uri, number in revisions.items()}["hot"] == 2
    assert said(output)["hot"] == "0.5 1003520"
    assert said(output)["locked"] == "0.0 200000"
    assert TOKEN not in out
