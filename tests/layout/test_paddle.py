"""The two layout engines on the same weights: PaddleX's predictor in its environment, PyTorch in its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PADDLE, TORCH = (ROOT / folder / "bin" / "python" for folder in (".venv-paddle", ".venv-vllm"))
SIZES = ["700x900", "1200x500", "90x70"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (PADDLE.exists() and TORCH.exists()), reason="make .venv-paddle .venv-vllm first"),
]


def regions(python: Path, engine: str, folder: Path) -> list[list[Any]]:
    words = [str(python), "tests/layout/engine_regions.py", engine, str(folder), *SIZES]
    ran = subprocess.run(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: list[list[Any]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_both_give_the_same_boxes(tmp_path: Path) -> None:
    """All 60 queries of each page: class, box, score to four places, order. V3 only: PaddleX's loader of V2 in dynamic mode
    gives other numbers from the same file (see docs/parity.md)."""
    subprocess.run([str(TORCH), "tests/layout/tiny_doclayout.py", "v3", str(tmp_path)], cwd=ROOT, check=True, timeout=200)
    ours = regions(TORCH, "transformers", tmp_path)
    assert [len(page) for page in ours] == [60, 60, 60]
    assert regions(PADDLE, "paddle", tmp_path) == ours
