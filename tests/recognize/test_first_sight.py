"""Weights are tried once per node; what the packed path must not run for runs on upstream's code, and says why."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Config, load
from pipelines.recognize.first_sight import reason_for_upstream
from pipelines.recognize.specimen import specimens
from pipelines.recognize.vllm_compare import Comparison
from tests.conftest import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"
GOOD: dict[str, Any] = {
    "crops": 10, "pixels": 0.0, "embeddings": 1e-7, "tolerance": 1e-4, "equal": 10, "exact_needed": True, "refusal": None,
    "answers": ["a"] * 10, "truths": ["a"] * 10, "tasks": ["ocr"] * 10,
}  # fmt: skip


class Compares:
    """Stands for the process that loads the model."""

    def __init__(self, fails: int = 0, **changes: Any) -> None:
        self.calls, self._fails, self._result = 0, fails, GOOD | changes

    def __call__(self, model: Path, config: Config, result: Path) -> None:
        self.calls += 1
        time.sleep(0.05)
        if self.calls <= self._fails:
            raise subprocess.CalledProcessError(1, ["compare"], stderr="Traceback ...\nRuntimeError: no memory")
        result.write_text(json.dumps(self._result))


@pytest.fixture
def config() -> Config:
    return load(settings=[f"vllm.model_dir={FIXTURE}"])


def test_compared_once_and_remembered(tmp_path: Path, config: Config) -> None:
    compares = Compares()
    assert [reason_for_upstream(FIXTURE, config, tmp_path, compares) for _ in range(3)] == [None] * 3
    assert compares.calls == 1


def test_other_weights_and_types_are_seen_for_the_first_time(tmp_path: Path, config: Config) -> None:
    compares = Compares()
    other = tmp_path / "other"
    shutil.copytree(FIXTURE, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 2}')
    half = load(settings=[f"vllm.model_dir={FIXTURE}", "vllm.dtype=float16"])
    for model, given in ((FIXTURE, config), (other, config), (FIXTURE, half), (FIXTURE, config)):
        reason_for_upstream(model, given, tmp_path / "cache", compares)
    assert compares.calls == 3


def test_engines_that_start_together_compare_once(tmp_path: Path, config: Config) -> None:
    compares, found = Compares(), []
    threads = [
        threading.Thread(target=lambda: found.append(reason_for_upstream(FIXTURE, config, tmp_path, compares))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 4
    assert compares.calls == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixels": 0.01}, "patches differ .* by 0.01"),
        ({"embeddings": 0.2}, "features differ from upstream's by 0.2"),
        ({"equal": 9}, "only 9 of 10 answers"),
        ({"equal": 8, "exact_needed": False}, "only 8 of 10 answers"),
    ],
)
def test_a_mismatch_means_upstream_and_says_so(tmp_path: Path, config: Config, changes: dict[str, Any], words: str) -> None:
    for _ in range(2):  # remembered too
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(reason_for_upstream(FIXTURE, config, tmp_path, Compares(**changes)))


def test_near_ties_in_half_precision_are_no_mismatch(tmp_path: Path, config: Config) -> None:
    assert reason_for_upstream(FIXTURE, config, tmp_path, Compares(equal=9, exact_needed=False)) is None


def test_a_comparison_that_fails_is_tried_again(tmp_path: Path, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    compares = Compares(fails=1)
    assert reason_for_upstream(FIXTURE, config, tmp_path, compares) == "the comparison with upstream did not finish"
    assert "no memory" in caplog.text
    assert reason_for_upstream(FIXTURE, config, tmp_path, compares) is None
    assert compares.calls == 2


def test_a_constant_that_is_not_as_assumed_needs_no_comparison(
    tmp_path: Path, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model"
    shutil.copytree(FIXTURE, model)
    content = json.loads((model / "preprocessor_config.json").read_text()) | {"do_rescale": False}
    (model / "preprocessor_config.json").write_text(json.dumps(content))
    compares = Compares()
    with caplog.at_level(logging.WARNING):
        reason = reason_for_upstream(model, config, tmp_path / "cache", compares)
    assert reason == "constants of the checkpoint: do_rescale is False"
    assert compares.calls == 0
    assert "do_rescale is False, assumed True" in caplog.text


def test_the_process_that_compares_gets_the_same_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.recognize import first_sight

    given = load(
        settings=[
            f"vllm.model_dir={FIXTURE}",
            "vllm.dtype=float16",
            "vllm.storage_options={secret: s3cret}",
            "paddleocr_vl.min_pixels=784",
        ]
    )
    seen: list[Config] = []

    def run(command: list[str], **_: Any) -> None:
        assert "s3cret" not in Path(command[4]).read_text()
        seen.append(load([command[4]]))

    monkeypatch.setattr(first_sight.subprocess, "run", run)
    first_sight._in_a_process(FIXTURE, given, tmp_path / "result")
    assert seen[0].paddleocr_vl == given.paddleocr_vl
    assert seen[0].vllm == given.vllm.model_copy(update={"storage_options": {}})


def test_it_can_be_left_out(tmp_path: Path) -> None:
    compares = Compares()
    for setting in ("vllm.verify=false", "vllm.load_format=dummy"):
        given = load(settings=[f"vllm.model_dir={FIXTURE}", setting])
        assert reason_for_upstream(FIXTURE, given, tmp_path, compares) is None
    assert compares.calls == 0


def test_a_result_survives_its_file() -> None:
    found = Comparison.of(GOOD)
    assert Comparison.of(json.loads(json.dumps(found.as_dict()))) == found
    assert found.problems() == []


def test_the_specimens_ask_about_every_region(config: Config) -> None:
    asked = [pair for page in specimens() for pair in page.crops(config.paddleocr_vl)]
    assert len(asked) == sum(len(page.regions) for page in specimens())
    assert {crop.task for crop, _ in asked} == {"ocr", "table"}
    for page in specimens():
        for region in page.regions:  # what is drawn lies inside its box, and the box holds nothing else
            box = page.page.pixels[int(region.box.y0) : int(region.box.y1), int(region.box.x0) : int(region.box.x1)]
            assert box.min() < 50
            assert box[0].min() == 255
            assert box[-1].min() == 255
