"""Reprocessing through Ray: killed in the middle and repeated, it ends like an undisturbed one; nobody writes beside it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import pagemill
from pipelines.ingest import reprocess
from pipelines.store.audit import audit
from pipelines.store.choosing import Choice
from tests.builders import archive
from tests.conftest import Driver, inline, inline_config
from tests.faults.harness import SLOW, kill_soon, parts, read_pages

WHERE = "fingerprint <> current AND page_index % 3 <> 1"
LIKE_DRIVER: dict[str, object] = {"raster__engine": "pymupdf"}


@pytest.mark.long  # in make test: inline, an open reading goes on (tests/source/test_reprocess.py); through Ray, ingest is killed
@pytest.mark.timeout(1200)
def test_killed_and_repeated_it_ends_like_an_undisturbed_one(driver: Driver, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", {"long": 34, "short-a": 1, "short-b": 2})
    for name in ("undisturbed", "out"):
        inline(source, tmp_path / name, **LIKE_DRIVER)
    slow = {key.replace(".", "__"): value for key, value in SLOW.items()} | LIKE_DRIVER
    config = inline_config(tmp_path / "undisturbed", **slow)
    assert reprocess(str(tmp_path / "undisturbed"), Choice(WHERE), config, inline=True).exit_code == 0
    expected = read_pages(str(tmp_path / "undisturbed"))
    assert sorted(expected.column("revision").to_pylist()) == [1] * 12 + [2] * 25

    output = str(tmp_path / "out")
    call = (output, f"--where={WHERE}")
    before = parts(output, None)
    process = driver.start(*call, settings=SLOW, job="reprocess")
    assert kill_soon(process, "driver", before, lambda: parts(output, None), random.Random(5))
    process.communicate(timeout=400)
    pending = audit(output)
    assert pending.pending > 0
    assert not pending.problems
    assert pagemill.read(output, "pages").num_rows == 37  # the earlier readings stay until the new ones are complete

    both = [driver.start(*call, settings=SLOW, job="reprocess") for _ in range(2)]  # whoever claims first
    ended = sorted((process.returncode, out) for process in both for out in [process.communicate(timeout=400)[0]])
    assert [code for code, _ in ended] == [0, 6], ended
    assert "is writing this output" in ended[1][1]
    assert read_pages(output).equals(expected)
    code, out = driver.run(*call, settings=SLOW, job="reprocess")
    assert (code, "nothing to do" in out) == (0, True), out
    result = audit(output)
    assert result.ok, result.problems
