"""A ledger of which something was lost is never called whole, and nothing is deleted on its word."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipelines.errors import ExitCode
from pipelines.ingest import reprocess
from pipelines.store.audit import audit
from pipelines.store.choosing import Choice
from pipelines.store.gaps import find_gaps
from pipelines.store.ledger import Ledger
from pipelines.store.segments import commit_key
from tests.builders import archive
from tests.conftest import Call, inline, inline_config


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """One run, all of it older than a day."""
    inline(archive(tmp_path / "in", {"a": 2, "b": 1}), output := tmp_path / "out")
    for path in (output / "pages").iterdir():
        os.utime(path, (0, 0))
    return output


def test_a_commit_that_is_lost_is_missed(call: Call, output: Path) -> None:
    commits = sorted((output / "ledger" / "0").glob("*.parquet"))
    parts = {path.name for path in (output / "pages").iterdir()}
    commits[2].unlink()
    found = audit(str(output))
    assert any("00000003" in problem for problem in found.problems), found.problems
    assert not found.ok
    for more in ([], ["--dry-run"]):
        code, said = call("gc", output, *more)
        assert (code, "DAMAGED_OUTPUT" in said, "nothing was deleted" in said) == (ExitCode.AUDIT_FAILED, True, True)
    assert {path.name for path in (output / "pages").iterdir()} == parts


def test_a_ledger_that_is_gone_is_missed(call: Call, output: Path) -> None:
    shutil.rmtree(output / "ledger")
    code, said = call("audit", output)
    assert (code, "PROBLEM    ledger: there is none, but there are parts" in said) == (ExitCode.AUDIT_FAILED, True), said
    assert call("gc", output)[0] == ExitCode.AUDIT_FAILED


def test_a_commit_of_meanwhile_is_no_gap(output: Path) -> None:
    """The ledger as it was read before two more commits were made."""
    from pipelines.store.objects import ObjectStore

    store = ObjectStore(str(output))
    ledger = Ledger(store)
    ledger.refresh()
    for number in (ledger.next_number, ledger.next_number + 1):
        store.put_new(commit_key("ledger/0", number), b"made meanwhile")
    assert list(find_gaps(store, [ledger])) == []
    store.delete(commit_key("ledger/0", ledger.next_number))
    assert len(list(find_gaps(store, [ledger]))) == 1


def test_a_new_output_has_no_gap(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inline(tmp_path / "in", tmp_path / "out")
    assert audit(str(tmp_path / "out")).ok


def test_parts_that_are_lost_are_read_again(call: Call, output: Path) -> None:
    """As docs/operations.md tells it: by the names that the audit gives."""
    (part, *_) = sorted((output / "pages").iterdir())
    part.unlink()
    shutil.rmtree(output / "markdown")
    found = audit(str(output))
    assert f"pages/{part.name}: missing" in found.problems
    again = Choice("part = " + repr(f"pages/{part.name}"))
    assert reprocess(str(output), again, inline_config(output), inline=True).exit_code == ExitCode.OK
    lost = f"pages/{part.name}: missing; it holds superseded readings only"
    left = audit(str(output)).problems
    assert all(problem.startswith("markdown/") for problem in left)  # of documents that had no page in that part
    reprocess(str(output), Choice("true"), inline_config(output), inline=True)
    found = audit(str(output))
    assert found.ok
    assert found.history == [lost]
