"""The two layout engines on the same weights, and UVDoc's: PaddleX's predictors in their environment, PyTorch in its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.layout import unwarped_page

PADDLE, TORCH = (ROOT / folder / "bin" / "python" for folder in (".venv-paddle", ".venv-vllm"))
SIZES = ["700x900", "1200x500", "90x70"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (PADDLE.exists() and TORCH.exists()), reason="make .venv-paddle .venv-vllm first"),
]


def regions(python: Path, engine: str, folder: Path) -> list[list[Any]]:
    found: list[list[Any]] = json.loads(run(python, "engine_regions.py", engine, str(folder), *SIZES).splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", ["v2", "v3"])
def run(python: Path, script: str, *words: str) -> str:
    command = [str(python), f"tests/layout/{script}", *words]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_both_give_the_same_boxes(tmp_path: Path, kind: str) -> None:
    """All 60 queries of each page: class, order, box, score. Two frameworks round apart: a pixel, a few ten-thousandths."""
    run(TORCH, "tiny_doclayout.py", kind, str(tmp_path))
    ours, theirs = regions(TORCH, "transformers", tmp_path), regions(PADDLE, "paddle", tmp_path)
    assert [len(page) for page in ours] == [60, 60, 60]
    for page, other in zip(ours, theirs, strict=True):
        assert [(label, order) for label, _, _, order in page] == [(label, order) for label, _, _, order in other]
        assert np.abs(np.array([box for _, box, _, _ in page]) - [box for _, box, _, _ in other]).max() <= 1
        assert np.abs(np.array([score for _, _, score, _ in page]) - [score for _, _, score, _ in other]).max() < 1e-3
    assert len({tuple(box) for page in ours for _, box, _, _ in page}) > 100  # else a picture would not matter


def test_pages_are_flattened_as_the_official_preprocessor_does(tmp_path: Path) -> None:
    """Bit for bit by Paddle, from the checkpoint and from its static form; by PyTorch to the last bit of each colour."""
    checkpoint, static = tmp_path / "checkpoint", tmp_path / "static"
    checkpoint.mkdir()
    static.mkdir()
    run(TORCH, "tiny_uvdoc.py", str(checkpoint))
    run(PADDLE, "static_uvdoc.py", str(checkpoint), str(static))

    def page(python: Path, who: str, folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        run(python, "unwarped_page.py", who, str(folder), str(tmp_path / "page.npy"))
        found: np.ndarray[Any, np.dtype[np.uint8]] = np.load(tmp_path / "page.npy")
        return found

    for folder in (checkpoint, static):
        official = page(PADDLE, "official", folder)
        assert (page(PADDLE, "paddle", folder) == official).all()
        assert np.abs(page(TORCH, "transformers", checkpoint).astype(int) - official).max() <= 1
        assert (official != unwarped_page.page()).mean() > 0.5
