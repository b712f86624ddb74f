"""Outputs of the official code on generated inputs, held against ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.parity import KINDS, hold
from pipelines.recognize.otsl import otsl_to_html
from tests.conftest import ROOT

VECTORS = Path(os.environ.get("PAGEMILL_VECTORS", ROOT.parent / "shared" / "reference" / "vectors"))
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="no vectors: PAGEMILL_VECTORS names none, ../shared has none")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_given_vector_matches(kind: str) -> None:
    held = hold(VECTORS / f"{kind}.jsonl")
    assert held.differing == []
    assert held.matched + held.declared == held.total > 0
    assert not held.declared or kind == "otsl_to_html"


def test_a_mismatch_ends_with_one_and_names_it(tmp_path: Path) -> None:
    good = {"in": "<fcel>a<nl>", "out": "<table><tr><td>a</td></tr></table>"}
    wrong = {"in": "<fcel>b<nl>", "out": "something else"}
    (tmp_path / "otsl_to_html.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n", "utf-8")
    (tmp_path / "unheard_of.jsonl").write_text("{}\n", "utf-8")
    done = subprocess.run([sys.executable, "-m", "jobs.parity", str(tmp_path)], cwd=ROOT, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (1, "otsl_to_html 1/2\n")
    assert "line 2" in done.stderr
    assert "unheard_of.jsonl: unknown kind" in done.stderr


@pytest.mark.parametrize("told", [{"out": {"__exc__": "IndexError"}}, {"__exc__": "IndexError", "vlm": []}])
def test_a_page_over_which_the_official_code_raised_needs_a_page_of_ours(tmp_path: Path, told: dict[str, object]) -> None:
    options = dict.fromkeys(("use_chart_recognition", "use_seal_recognition", "use_ocr_for_image_block"), False)
    vector = {"raw": [[21.0, 0.9, 10.0, 10.0, 500.0, 300.0, 0.0]], "opts": options | {"merge_layout_blocks": True}}
    (tmp_path / "page_end_to_end.jsonl").write_text(json.dumps(vector | told) + "\n", "utf-8")
    held = hold(tmp_path / "page_end_to_end.jsonl")
    assert (held.declared, held.matched, held.total, held.differing) == (1, 0, 1, [])


def test_clean_tables_need_no_strictness() -> None:
    """A table without empty `<fcel>` is read the same with and without the official mistakes."""
    lines = (VECTORS / "otsl_to_html_clean.jsonl").read_text("utf-8").splitlines()
    assert [line for line in lines if otsl_to_html(json.loads(line)["in"]) != json.loads(line)["out"]] == []
