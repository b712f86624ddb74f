"""What a listing is: DESIGN section 6, on a disk and on S3; manifests and globs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigError, SourceUnreachable
from pipelines.source.listing import discover, local_path, prefix_of
from pipelines.source.pattern import Pattern
from pipelines.store.objects import ObjectStore
from tests.s3server import S3

NAMES = ("a.pdf", "sub/b", "sub/deep/C.PDF", "sub/.hidden.pdf", "nàme with % and 空.tiff", "-rf.pdf")
DROPPED = {
    "_SUCCESS": "dropping", "sub/.DS_Store": "dropping", "Thumbs.db": "dropping", ".git/x.pdf": "dot_folder",
    "old/pagemill.json": "pagemill_output", "old/x.pdf": "", "old/pages/part.parquet": "",
}  # fmt: skip


def listed(source: str, options: dict[str, object] | None = None) -> tuple[list[str], Counter[str]]:
    skipped: Counter[str] = Counter()
    return sorted(info.uri for info in discover(source, options or {}, skipped)), skipped


def fill(root: str, options: dict[str, object] | None = None) -> None:
    store = ObjectStore(root, options)
    for name in (*NAMES, *DROPPED):
        store.put(name, name.encode())


def test_a_folder_on_disk(tmp_path: Path) -> None:
    fill(str(tmp_path / "in"))
    (tmp_path / "in" / "link.pdf").symlink_to(tmp_path / "in" / "a.pdf")
    (tmp_path / "in" / "dangling.pdf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe")
    uris, skipped = listed(str(tmp_path / "in"))
    assert uris == sorted(f"{tmp_path}/in/{name}" for name in (*NAMES, "link.pdf", "dangling.pdf"))
    assert skipped == {"dropping": 3, "dot_folder": 1, "pagemill_output": 1, "link_to_folder": 1, "not_a_file": 1}
    assert prefix_of(str(tmp_path / "in")) == f"{tmp_path}/in/"


def test_identity_on_disk_is_size_times_and_inode(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"1234")
    (info,) = discover(str(tmp_path), {}, Counter())
    found = (tmp_path / "a.pdf").stat()
    assert (info.size, info.mtime_ns, info.ctime_ns, info.inode, info.etag) == (
        4, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, None,
    )  # fmt: skip


def test_names_are_kept_byte_for_byte(tmp_path: Path) -> None:
    composed, decomposed, latin = "é.pdf".encode(), "e\u0301.pdf".encode(), b"latin-\xe9%.pdf"
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in (composed, decomposed, latin)]
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(b"x")
    uris, _ = listed(str(tmp_path))
    assert sorted(os.fsencode(local_path(uri)) for uri in uris) == sorted(paths)
    (odd,) = (uri for uri in uris if "latin" in uri)
    assert odd == f"file://{tmp_path}/latin-%E9%25.pdf"
    assert listed(odd)[0] == [odd]  # a single file by that name


def test_a_prefix_on_s3(s3: S3) -> None:
    bucket = s3.bucket()
    fill(f"{bucket}/in", s3.options())
    store = ObjectStore(bucket, s3.options())
    for key in ("in/", "in/sub/", "in/empty/", "index.pdf"):
        store.put(key, b"")
    store.put("in/sub//double.pdf", b"x")
    uris, skipped = listed(f"{bucket}/in", s3.options())
    assert uris == sorted(f"{bucket}/in/{name}" for name in (*NAMES, "sub//double.pdf"))
    assert skipped == {"dropping": 3, "dot_folder": 1, "pagemill_output": 1, "folder_key": 3}
    assert listed(f"{bucket}/index.pdf", s3.options())[0] == [f"{bucket}/index.pdf"]
    with pytest.raises(SourceUnreachable):
        listed(f"{bucket}/nothing/here", s3.options())
    with pytest.raises(SourceUnreachable):
        listed("s3://no-such-bucket-at-all", s3.options())
    assert listed(s3.bucket(), s3.options())[0] == []  # an empty archive is no error


def test_a_long_folder_on_s3_is_asked_for_page_by_page_and_never_cut_short(s3: S3) -> None:
    bucket = s3.bucket()
    store = ObjectStore(bucket, s3.options())
    for number in range(1005):
        store.put(f"in/{number:04d}.pdf", b"")
    s3.fault("slowdown", "GET", "list-type", times=1, skip=1)  # the second page, the first time
    s3.fault("truncated", "GET", "continuation-token", times=1)
    requests: Counter[str] = Counter()
    found = [info.uri for info in discover(f"{bucket}/in", s3.options(faulty=True), Counter(), requests)]
    assert len(found) == len(set(found)) == 1005
    assert (requests["list"], requests["retried"]) == (4, 2)
    s3.fault("reset", "GET", "continuation-token", times=100)
    with pytest.raises(SourceUnreachable):
        list(discover(f"{bucket}/in", s3.options(faulty=True), Counter()))


def test_no_such_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable):
        listed(str(tmp_path / "nothing"))
    with pytest.raises(SourceUnreachable):
        listed(str(tmp_path / "nothing" / "*.pdf"))


PATTERNS = {
    "*.pdf": ["-rf.pdf", "a.pdf"],
    "**": list(NAMES),
    "**/*.pdf": ["-rf.pdf", "a.pdf", "sub/.hidden.pdf"],
    "sub/*": ["sub/.hidden.pdf", "sub/b"],
    "s?b/**/[CD]*": ["sub/deep/C.PDF"],
    "*/deep/*": ["sub/deep/C.PDF"],
    "x*": [],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_globs_on_disk(tmp_path: Path, pattern: str) -> None:
    fill(str(tmp_path / "in"))
    (tmp_path / "in" / "sub" / "again").symlink_to(tmp_path / "in")
    assert listed(f"{tmp_path}/in/{pattern}")[0] == sorted(f"{tmp_path}/in/{name}" for name in PATTERNS[pattern])
    assert prefix_of(f"{tmp_path}/in/{pattern}") is None


def test_globs_on_s3(s3: S3) -> None:
    bucket = s3.bucket()
    fill(f"{bucket}/in", s3.options())
    for pattern, names in PATTERNS.items():
        assert listed(f"{bucket}/in/{pattern}", s3.options())[0] == sorted(f"{bucket}/in/{name}" for name in names)


def test_a_pattern_enters_only_what_may_match() -> None:
    pattern = Pattern.parse("/data/20*/x/*.pdf")
    assert pattern.root == "/data"
    assert pattern.may_hold(("2024",))
    assert pattern.may_hold(("2024", "x"))
    assert not pattern.may_hold(("1999",))
    assert not pattern.may_hold(("2024", "x", "y"))
    assert Pattern.parse("/data/**/y/*").may_hold(("a", "b", "c"))


def test_manifests(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket()
    ObjectStore(bucket, s3.options()).put("in/r.pdf", b"12")
    (tmp_path / "l.pdf").write_bytes(b"1")
    uris = [f"{bucket}/in/r.pdf", f"{tmp_path}/l.pdf", "l.pdf", f"{bucket}/in/gone.pdf"]
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "uri": uris}), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_text("path,n\n" + "".join(f"{uri},1\n" for uri in uris))
    (tmp_path / "m.txt").write_bytes(b"# a comment\r\n" + "\r\n".join(uris).encode() + b"\n\n")
    wanted = [(uris[0], 2), (uris[1], 1), (uris[1], 1), (uris[3], None)]
    for name in ("m.parquet", "m.csv", "m.txt"):
        found = list(discover(str(tmp_path / name), s3.options(), Counter()))
        assert [(info.uri, info.size) for info in found] == wanted, name
        assert found[0].etag
        assert found[1].inode
    ObjectStore(bucket, s3.options()).put("m.txt", b"in/r.pdf\n")
    assert listed(f"{bucket}/m.txt", s3.options())[0] == [uris[0]]


def test_a_manifest_that_is_none_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("name\nx\n")
    (tmp_path / "m.parquet").write_bytes(b"not parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(ConfigError, match=name):
            listed(str(tmp_path / name))
