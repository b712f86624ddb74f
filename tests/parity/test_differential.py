"""The official code beside ours on generated pages. `make parity` does the same with more of them."""

from __future__ import annotations

import copy
import json
import subprocess

import pytest

from pipelines.config import load
from tests.conftest import ROOT
from tests.parity import cases
from tests.parity.differential import Tally, compare

PYTHON = ROOT / ".venv-paddle" / "bin" / "python"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="the official packages are not installed: make .venv-paddle"),
]


def test_sixty_pages_agree() -> None:
    command = [str(PYTHON), "-m", "tests.parity.differential", str(PYTHON), "--pages", "60", "--vectors", "60", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_changed_result_is_seen() -> None:
    """The comparison itself: each kind of output, changed by one character, is reported."""
    case = cases.document(100)
    oracle = [str(PYTHON), str(ROOT / "tests" / "parity" / "oracle.py")]
    done = subprocess.run(oracle, input=json.dumps(case) + "\n", text=True, capture_output=True, check=True)
    result = json.loads(done.stdout)
    base = load(settings=["paddleocr_vl.strict_parity=true"]).paddleocr_vl
    tally = Tally()
    compare(100, case, result, base, tally)
    assert tally.texts == []
    for path in (["pages", 0, "md"], ["pages", 0, "json", "width"], ["restructured", 0, "md_plain"], ["one", 0, "imgs"]):
        changed = copy.deepcopy(result)
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "else"
        tally = Tally()
        compare(100, case, changed, base, tally)
        assert tally.texts, path
