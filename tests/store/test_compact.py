"""Compaction moves rows and loses none: cut off anywhere, beside a driver, beside readers, beside another compaction."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pagemill
from pipelines.errors import ExitCode, StoreUnavailable
from pipelines.ingest import ingest
from pipelines.store.audit import audit
from pipelines.store.compact import Compacted, Compactor
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import comparable
from pipelines.store.records import record
from tests.builders import archive, text_pdf
from tests.conftest import inline, inline_config
from tests.s3server import S3
from tests.store.made import A, Made

_SMALL = 40_000  # bytes: a part of a few pages has about 20,000


def compacted(output: Path | str, least: int = _SMALL, store: ObjectStore | None = None) -> Compacted:
    store = store or ObjectStore(str(output))
    ledger = Ledger(store, merge_every=3)
    try:
        return Compactor(store, ledger, least).compact()
    finally:
        ledger.close()


def rows(output: Path | str, history: bool = False) -> list[dict[str, object]]:
    table = pagemill.read(str(output), "pages", history=history)
    return sorted(
        table.drop_columns(["part"] if not history else []).to_pylist(),
        key=lambda r: (r["doc_id"], r["page_index"], r["attempt"]),
    )


def parts(output: Path) -> set[str]:
    return set(pagemill.read(str(output), "pages", columns=["part"])["part"].to_pylist())


@pytest.fixture
def read(tmp_path: Path) -> Path:
    """An output of thirteen small parts."""
    output = tmp_path / "out"
    inline(archive(tmp_path / "in", {"a": 9, "b": 1, "c": 14}), output, source__span_pages=2, store__merge_every=3)
    assert len(parts(output)) > 8
    return output


def test_every_row_is_there_afterwards_in_fewer_parts(read: Path) -> None:
    before, all_before, count = rows(read), rows(read, history=True), len(parts(read))
    done = compacted(read)
    assert done.files > 1
    assert len(parts(read)) == count - done.parts + done.files
    assert rows(read) == before
    assert rows(read, history=True) == all_before
    assert audit(str(read)).ok
    again = compacted(read, 10 * _SMALL)  # what was merged is merged again: every first name leads to the last place
    assert again.parts == 0 or again.files
    whole = compacted(read, sum(path.stat().st_size for path in (read / "pages").iterdir()) // 8)
    assert whole.files >= 1
    assert rows(read) == before
    assert rows(read, history=True) == all_before
    assert audit(str(read)).ok


def test_a_few_small_parts_wait_for_more(read: Path) -> None:
    done = compacted(read, 1 << 30)
    assert (done.parts, done.files) == (0, 0)
    assert done.left == len(parts(read))


def test_later_runs_go_on_from_a_compacted_output(read: Path, tmp_path: Path) -> None:
    compacted(read)
    text_pdf(tmp_path / "in" / "d.pdf", 3)
    assert inline(tmp_path / "in", read, source__span_pages=2).exit_code == ExitCode.OK
    assert audit(str(read)).ok
    assert len(rows(read)) == 27


def cut_off_at(step: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> bool:
    """Runs `work` with a store that fails for good at its write (or deletion) number `step`; whether there was one."""
    count = itertools.count(1)

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def write(*arguments: object) -> object:
            if next(count) >= step:
                raise StoreUnavailable("cut off")
            return real(*arguments)

        return write

    with monkeypatch.context() as patch:
        for name in ("put", "put_new", "delete"):
            patch.setattr(ObjectStore, name, failing(getattr(ObjectStore, name)))
        try:
            work()
        except StoreUnavailable:
            return True
    return False


def test_cut_off_at_every_write_it_loses_nothing(read: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(read)
    step = 0
    while cut_off_at(step := step + 1, monkeypatch, lambda: compacted(read)):
        assert rows(read) == before, f"after write {step - 1}"
        assert audit(str(read)).ok
    assert step > 3
    assert rows(read) == before


def test_beside_a_driver_and_readers(tmp_path: Path) -> None:
    source = archive(tmp_path / "in", dict.fromkeys("abcdef", 9))
    inline(source, tmp_path / "undisturbed", source__span_pages=2)
    output = tmp_path / "out"
    config = inline_config(output, source__span_pages=2, recognize__engine="tests.readers:SlowReader")
    ended: list[ExitCode] = []
    driver = threading.Thread(target=lambda: ended.append(ingest(str(source), str(output), config, inline=True).exit_code))
    driver.start()
    moved, seen = 0, 0
    while driver.is_alive():
        if (output / "pagemill.json").exists():
            moved += compacted(output, 20_000).files
            now = rows(output)
            assert len(now) == len({(row["doc_id"], row["page_index"]) for row in now})
            assert len(now) >= seen, "a page that was read is not seen any more"
            seen = len(now)
        time.sleep(0.02)
    driver.join()
    assert ended == [ExitCode.OK]
    assert moved > 1
    result = audit(str(output), map(str, source.iterdir()))
    assert result.ok, result.problems
    # the reader's name is all that differs between the two runs
    assert _plain(output) == _plain(tmp_path / "undisturbed")


def _plain(output: Path) -> list[dict[str, object]]:
    table = comparable(pagemill.read(str(output), "pages")).to_pylist()
    for row in table:
        row.pop("fingerprint")
        for block in row["blocks"]:
            block.pop("engine")
    return table


def test_two_at_once(read: Path) -> None:
    before = rows(read)
    gate = threading.Barrier(2)

    def run() -> None:
        gate.wait()
        compacted(read)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(read) == before
    assert audit(str(read)).ok


def test_two_that_group_differently_show_no_row_twice(read: Path) -> None:
    before, history, before_files = rows(read), rows(read, history=True), list((read / "pages").iterdir())
    store = ObjectStore(str(read))
    slow, fast = (Ledger(store, merge_every=3) for _ in range(2))
    slow.refresh()  # it will merge what it saw now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow, "refresh", list)
        assert Compactor(store, fast, _SMALL).compact().files > 1
        of_fast = parts(read)
        assert Compactor(store, slow, sum(path.stat().st_size for path in before_files) // 2 + 1).compact().files == 1
    assert parts(read) & of_fast, "nothing is left of the first compaction: the test shows nothing"
    assert rows(read) == before
    assert rows(read, history=True) == history
    assert audit(str(read)).ok
    slow.close()
    fast.close()


def test_an_amendment_fences_nobody_and_is_no_sign_of_life(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    driver = Ledger(store, merge_every=3)
    driver.claim("first", stale_after_s=0.5, beat_s=60)
    other = Ledger(store, merge_every=3)
    other.refresh()
    numbers = []
    for _ in range(4):
        numbers.append(other.amend([record("moved", old_part="a", new_part="b")]))
        numbers.append(driver.append([record("run", summary="x")]))
    assert numbers == list(range(2, 10))
    driver.close()  # it stops beating, and its claim is of another boot as far as the next one knows
    stopped = threading.Event()

    def amending() -> None:
        while not stopped.wait(0.05):
            other.amend([record("moved", old_part="a", new_part="b")])

    thread = threading.Thread(target=amending)
    thread.start()
    try:
        successor = Ledger(store, merge_every=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.store.ledger.is_gone", lambda claim: False)
            successor.claim("second", stale_after_s=0.5, beat_s=60)
        successor.append([record("run", summary="y")])
        successor.release()
        successor.close()
    finally:
        stopped.set()
        thread.join()


def test_a_part_with_unknown_columns_is_left_alone(tmp_path: Path) -> None:
    made = Made(tmp_path / "out")
    made.source("/a.pdf", A, format="pdf", page_count=3)
    made.opened(A, 1, [0, 1, 2])
    for page in range(3):
        made.span(A, 1, (page,), "text")
    made.complete(A, 1, 3)
    newer = next((tmp_path / "out" / "pages").iterdir())
    table = pq.read_table(newer)
    content = table.append_column("of_a_later_version", pa.array(["x"] * len(table)))
    store = ObjectStore(made.root)
    sink = io.BytesIO()
    pq.write_table(content, sink)
    key = f"pages/part-{hashlib.sha256(sink.getvalue()).hexdigest()}.parquet"
    store.put(key, sink.getvalue())
    made.commit(record("moved", old_part=f"pages/{newer.name}", new_part=key))
    before = made.markdown()
    live = parts(tmp_path / "out")
    together = sum((tmp_path / "out" / part).stat().st_size for part in live)
    done = compacted(made.root, together)  # one file of all three, whichever of them the unknown columns are in
    assert done.foreign == [key]
    assert made.markdown() == before
    assert key in parts(tmp_path / "out")
    made.ledger.release()


def test_on_s3(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket()
    options = {"endpoint_url": s3.faulty, "key": "test", "secret": "test"}
    source = archive(tmp_path / "in", {"a": 9, "b": 3})
    ingest(
        str(source), f"{bucket}/out",
        inline_config(tmp_path / "local", source__span_pages=2, store__storage_options=options), inline=True,
    )  # fmt: skip
    before = pagemill.read(f"{bucket}/out", "pages", storage_options=options).drop_columns(["part"]).to_pylist()
    s3.fault("lost_answer", "PUT", "out/ledger/0/0", times=2)
    s3.fault("slowdown", "PUT", "out/pages", times=1)
    done = compacted("", 30_000, ObjectStore(f"{bucket}/out", options))
    assert done.files >= 1
    assert pagemill.read(f"{bucket}/out", "pages", storage_options=options).drop_columns(["part"]).to_pylist() == before
    assert audit(f"{bucket}/out", None, options).ok
