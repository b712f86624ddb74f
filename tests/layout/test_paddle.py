"""The two layout engines on the same weights, and UVDoc's: PaddleX's predictors in their environment, PyTorch in its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pagemill
from pipelines.schema import PAGES
from tests.conftest import ROOT, Driver
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


def run(python: Path, script: str, *words: str) -> str:
    command = [str(python), f"tests/layout/{script}", *words]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("kind", ["v2", "v3"])
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


@pytest.mark.parametrize("engine", ["paddle", "transformers"])
def test_documents_with_options_of_their_own_share_the_model(tmp_path: Path, engine: str) -> None:
    """Each set of options gives what an engine made with it gives, and leaves no trace in what the others find."""
    run(TORCH, "tiny_doclayout.py", "v3", str(tmp_path))
    python = PADDLE if engine == "paddle" else TORCH
    found = json.loads(run(python, "engine_options.py", engine, str(tmp_path)).splitlines()[-1])
    assert found["after"] == found["before"]
    assert sum(map(len, found["before"])) > 10
    same = {"not the layout's"} | ({"outlines"} if engine == "paddle" else set())  # PaddleX outlines nothing in a checkpoint
    for name, told in found["options"].items():
        assert told["varied"] == told["fresh"], name
        assert (told["varied"] == found["before"]) == (name in same), name
    outlined = {bool(polygon) for page in found["options"]["outlines"]["varied"] for *_, polygon in page}
    assert outlined == {engine == "transformers"}


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


def test_pages_are_turned_as_the_official_preprocessor_does() -> None:
    script = """
import numpy as np
from paddlex.inference.pipelines.components import rotate_image
from pipelines.layout.orientation import turned
from pipelines.schema import RasterPage
pixels = np.random.default_rng(0).integers(1, 256, (41, 60, 3), dtype=np.uint8)
for angle in (90, 180, 270):
    page = RasterPage(pixels, 72, 60, 41)
    assert (turned(page, angle, strict=True).pixels == rotate_image(pixels, angle)).all(), angle
    assert (turned(page, angle).pixels != rotate_image(pixels, angle)).any(), angle
"""
    environment = os.environ | {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([str(PADDLE), "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr


def test_through_ray_the_layout_stage_runs_in_its_own_interpreter(driver: Driver, tmp_path: Path) -> None:
    """`.venv` has no paddle and `.venv-paddle` has no reader: together they give what Paddle's environment gives alone."""
    model, source = tmp_path / "model", tmp_path / "in"
    model.mkdir()
    source.mkdir()
    run(TORCH, "tiny_doclayout.py", "v3", str(model))
    for seed, (width, height) in enumerate([(500, 700), (600, 400), (90, 70)]):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / f"{seed}.png")
    settings: dict[str, object] = {
        "layout.engine": "paddle", "layout.model_dir": model, "layout.device": "cpu", "recognize.engine": "echo",
        "raster.engine": "pypdfium2", "paddleocr_vl.layout_threshold": 0.2, "source.cache_dir": tmp_path / "cache",
        "observe.report_pages": 0,
    }  # fmt: skip
    code, said = driver.run(str(source), str(tmp_path / "ray"), settings=settings | {"layout.python": PADDLE, "ray.workers": 1})
    assert code == 0, said
    alone = [f"--set={key}={value}" for key, value in (settings | {"raster.dpi": 36}).items()]
    command = [str(PADDLE), "-m", "jobs.ingest", str(source), str(tmp_path / "alone"), "--inline", *alone]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    columns = ["doc_id", "state", "width_px", "height_px", "regions"]
    assert set(columns) <= set(PAGES.names)
    through_ray, inline = (
        pagemill.read(str(tmp_path / name), "pages").select(columns).sort_by("doc_id").to_pylist() for name in ("ray", "alone")
    )
    assert through_ray == inline
    assert all(row["regions"] for row in through_ray)
