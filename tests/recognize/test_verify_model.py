"""`pagemill verify-model` on the fixture, by vLLM itself, and on one whose processor was altered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import ExitCode
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"
SMALL = [
    "paddleocr_vl.min_pixels=784", "paddleocr_vl.max_pixels=200704", "paddleocr_vl.max_new_tokens=512",
    "vllm.max_model_len=2048", "vllm.max_num_batched_tokens=2048", "vllm.dtype=float32",
]  # fmt: skip


def verify(model: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "jobs.verify_model", str(model), *options]
    done = subprocess.run(
        [*command, *(part for setting in SMALL for part in ("--set", setting))], cwd=ROOT, text=True, capture_output=True
    )
    return done.returncode, done.stdout


def test_constants_alone_need_no_engine(tmp_path: Path) -> None:
    code, out = verify(FIXTURE, "--constants-only")
    assert code == ExitCode.OK
    assert "rope_theta is 100, assumed 500000" in out
    assert "chat template of 1.5 and 1.6" in out
    altered = tmp_path / "altered"
    shutil.copytree(FIXTURE, altered)
    tokenizer = json.loads((altered / "tokenizer.json").read_text("utf-8"))
    for entry in tokenizer["added_tokens"]:
        entry["special"] = entry["special"] or entry["content"] == "<fcel>"
    (altered / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    code, out = verify(altered)  # without the option: a broken checkpoint is not loaded
    assert code == ExitCode.UNHEALTHY
    assert "<fcel> special is True, assumed False" in out


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_fixture_is_verified_and_reads(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is in an environment of its own")
    code, out = verify(FIXTURE, "--result", str(tmp_path / "result.json"))
    assert code == ExitCode.OK, out
    assert "packed path: verified" in out
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["comparison"]["equal"] == found["comparison"]["crops"]
    assert found["comparison"]["pixels"] == 0.0
    assert found["scores"]["exact"] >= 0.75


def start(model: Path, scratch: Path) -> str:
    """What an engine says while it starts and reads the first specimen."""
    settings = [f"vllm.model_dir={model}", "vllm.enforce_eager=true", *SMALL]
    command = [sys.executable, str(Path(__file__).with_name("engine_alone.py")), *settings]
    done = subprocess.run(
        command, cwd=ROOT, text=True, capture_output=True, env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_engine_tries_weights_that_it_sees_for_the_first_time(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is in an environment of its own")

    said = start(FIXTURE, tmp_path)
    assert "first_sight" in said
    assert "equal=8 crops=8" in said
    assert "packed_tower_off" not in said
    assert "answer Annual Report 2026" in said
    altered = tmp_path / "altered"
    shutil.copytree(FIXTURE, altered)
    processor = json.loads((altered / "preprocessor_config.json").read_text()) | {"do_convert_rgb": False}
    (altered / "preprocessor_config.json").write_text(json.dumps(processor))
    said = start(altered, tmp_path)
    assert "first sight" not in said  # its constants decide
    assert "do_convert_rgb is False" in said
    assert "packed_tower_off" in said
    assert "answer Annual Report 2026" in said
