"""The two layout engines on the same weights: PaddleX's predictor in its environment, PyTorch in its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_both_give_the_same_boxes(tmp_path: Path, kind: str) -> None:
    """All 60 queries of each page: class, order, box, score. Two frameworks round apart: a pixel, a few ten-thousandths."""
    subprocess.run([str(TORCH), "tests/layout/tiny_doclayout.py", kind, str(tmp_path)], cwd=ROOT, check=True, timeout=200)
    ours, theirs = regions(TORCH, "transformers", tmp_path), regions(PADDLE, "paddle", tmp_path)
    assert [len(page) for page in ours] == [60, 60, 60]
    for page, other in zip(ours, theirs, strict=True):
        assert [(label, order) for label, _, _, order in page] == [(label, order) for label, _, _, order in other]
        assert np.abs(np.array([box for _, box, _, _ in page]) - [box for _, box, _, _ in other]).max() <= 1
        assert np.abs(np.array([score for _, _, score, _ in page]) - [score for _, _, score, _ in other]).max() < 1e-3
    assert len({tuple(box) for page in ours for _, box, _, _ in page}) > 100  # else a picture would not matter
