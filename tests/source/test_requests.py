"""The report's requests are those that the store received."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import ExitCode
from pipelines.store.objects import ObjectStore
from tests.builders import page_text, pdf_bytes
from tests.conftest import inline
from tests.s3server import S3


def test_fetches_listings_and_puts_are_counted_as_the_store_saw_them(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket()
    for name, pages in {"a": 20, "b": 1, "sub/c": 3}.items():
        data = pdf_bytes([page_text(name, page) for page in range(pages)])
        ObjectStore(bucket, s3.options()).put(f"in/{name}.pdf", data)
    options = s3.options(faulty=True)
    before = len(s3.faults.seen)
    settings: dict[str, object] = {
        "source__storage_options": options,
        "store__storage_options": options,
        "claim__beat_s": 1000,
        "observe__report_pages": 0,
    }
    ended = inline(f"{bucket}/in", f"{bucket}/out", source__cache_dir=str(tmp_path / "cache"), **settings)
    assert ended.exit_code == ExitCode.OK
    seen = s3.faults.seen[before:]
    counted = ended.summary.requests
    documents = [line for line in seen if line.startswith("GET") and ".pdf" in line]
    assert counted["source_get"] == len(documents) == 3
    # with max-keys=1 the client asks whether a name is a folder: that is a look at one object (head)
    listed = [line for line in seen if "list-type" in line and "max-keys=1&" not in line]
    assert counted["source_list"] == len([line for line in listed if "prefix=in" in line]) == 2
    until = next(number for number, line in enumerate(seen) if line.startswith("PUT") and "report.json" in line)
    puts = [line for line in seen[:until] if line.startswith("PUT")]
    assert counted["put"] == len(puts)
