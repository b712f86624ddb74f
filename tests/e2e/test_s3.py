"""Source and output on an S3 API, with faults: nothing lost, retries bounded. Through Ray where workers have a part in it."""

from __future__ import annotations

import json
from pathlib import Path

import pagemill
from pipelines.errors import ExitCode
from pipelines.store.audit import audit
from pipelines.store.objects import ObjectStore
from tests.builders import page_text, pdf_bytes
from tests.conftest import Driver, inline
from tests.s3server import S3


def fill(s3: S3, bucket: str, sizes: dict[str, int]) -> list[str]:
    store = ObjectStore(bucket, s3.options())
    for name, pages in sizes.items():
        store.put(f"in/{name}.pdf", pdf_bytes([page_text(name, page) for page in range(pages)]))
    store.put("in/", b"")  # a folder key, as consoles leave them
    store.put("in/_SUCCESS", b"")
    return [f"{bucket}/in/{name}.pdf" for name in sizes]


def test_faults_on_both_ends_lose_nothing(driver: Driver, s3: S3) -> None:
    bucket = s3.bucket()
    uris = fill(s3, bucket, {"a": 9, "b": 1, "sub/c": 3, "nàme with % and 空": 1})
    options = json.dumps(s3.options(faulty=True))
    settings: dict[str, object] = {"source.storage_options": options, "store.storage_options": options, "store.retries": 4,
                                   "ray.workers": 1}  # fmt: skip
    s3.fault("slowdown", "GET", "list-type", times=2)
    s3.fault("reset", "GET", "in/a.pdf", times=2)
    s3.fault("truncated", "GET", "in/b.pdf", times=1)
    s3.fault("slowdown", "PUT", "out/pages", times=1)
    s3.fault("torn", "PUT", "out/pages", times=1)
    s3.fault("lost_answer", "PUT", "out/ledger/0/0000000", times=3, skip=1)
    s3.fault("torn", "PUT", "out/markdown", times=1)
    code, out = driver.run(f"{bucket}/in", f"{bucket}/out", settings=settings)
    assert code == 0, out
    assert not [rule for rule in s3.faults.rules if rule["times"]], "a fault was never met"
    rows = pagemill.read(f"{bucket}/out", "pages", storage_options=s3.options()).to_pylist()
    assert [row["state"] for row in rows] == ["ok"] * 14
    result = audit(f"{bucket}/out", uris, s3.options())
    assert result.ok, result.problems
    assert result.sources == 4
    code, out = driver.run(f"{bucket}/in", f"{bucket}/out", settings=settings)
    assert code == 0
    assert "nothing to do" in out


def test_a_listing_that_breaks_off_marks_nothing_vanished(s3: S3, tmp_path: Path) -> None:
    """Inline: what is listed, and what becomes of it in the ledger, is the driver's alone."""
    bucket = s3.bucket()
    uris = fill(s3, bucket, {"a": 1, "b": 1})
    output = f"{bucket}/out"

    def run(faulty: bool = False, retries: int = 4) -> ExitCode:
        storage = {"source__storage_options": json.dumps(s3.options(faulty)), "store__storage_options": json.dumps(s3.options())}
        return inline(f"{bucket}/in", output, source__cache_dir=tmp_path, store__retries=retries, **storage).exit_code

    assert run() == ExitCode.OK
    s3.fault("slowdown", "GET", "list-type", times=10_000)
    assert run(faulty=True, retries=1) == ExitCode.SOURCE_UNREACHABLE
    s3.faults.rules.clear()

    def presence() -> dict[str, str]:
        rows = pagemill.read(output, "sources", storage_options=s3.options()).to_pylist()
        return {row["uri"]: row["presence"] for row in rows}

    assert presence() == dict.fromkeys(uris, "present")
    ObjectStore(bucket, s3.options()).delete("in/b.pdf")
    assert run() == ExitCode.OK
    assert presence() == {uris[0]: "present", uris[1]: "vanished"}
    assert len(pagemill.read(output, "pages", storage_options=s3.options())) == 2  # a vanished one keeps its last reading
    assert audit(output, uris[:1], s3.options()).ok


def test_one_get_a_document_and_node(driver: Driver, s3: S3) -> None:
    bucket = s3.bucket()
    fill(s3, bucket, {"long": 40})
    options = json.dumps(s3.options(faulty=True))
    before = len(s3.faults.seen)
    settings: dict[str, object] = {"source.storage_options": options, "source.span_pages": 4}
    code, out = driver.run(f"{bucket}/in", str(Path(driver.cache).parent / "out"), settings=settings)
    assert code == 0, out
    gets = [seen for seen in s3.faults.seen[before:] if seen.startswith("GET") and "long.pdf" in seen]
    assert len(gets) == 1
