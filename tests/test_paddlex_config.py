"""The official settings files, as they are and with what should not be in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.layout.labels import MERGE_MODES, V1_THRESHOLDS
from pipelines.paddlex_config import backend_file, pipeline_file

PIPELINE: dict[str, Any] = {  # the keys of the shipped file, in its form
    "pipeline_name": "PaddleOCR-VL",
    "batch_size": 64,
    "use_queues": True,
    "use_doc_preprocessor": False,
    "use_layout_detection": True,
    "use_chart_recognition": True,
    "format_block_content": False,
    "merge_layout_blocks": True,
    "markdown_ignore_labels": ["number", "header"],
    "SubModules": {
        "LayoutDetection": {
            "module_name": "layout_detection",
            "model_name": "PP-DocLayoutV2",
            "model_dir": None,
            "batch_size": 8,
            "threshold": dict(V1_THRESHOLDS),
            "layout_nms": True,
            "layout_unclip_ratio": [1.0, 1.0],
            "layout_merge_bboxes_mode": dict(MERGE_MODES),
        },
        "VLRecognition": {
            "module_name": "vl_recognition",
            "model_name": "PaddleOCR-VL-0.9B",
            "model_dir": None,
            "batch_size": -1,
            "genai_config": {"backend": "vllm-server", "server_url": "http://localhost:8118/v1", "max_concurrency": 64},
        },
    },
    "SubPipelines": {"DocPreprocessor": {"use_doc_unwarping": True}},
    "Serving": {"extra": {"max_num_input_imgs": None}},
}


def file(folder: Path, told: dict[str, Any]) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(told), "utf-8")
    return path


def changed(*path: str, value: object = None) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(yaml.safe_dump(PIPELINE))
    place = told
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return told


def prepared(modules: dict[str, Any]) -> dict[str, Any]:
    return {"SubPipelines": {"DocPreprocessor": {"batch_size": 8, "SubModules": modules}}}


def test_a_pipeline_file_as_it_is(tmp_path: Path) -> None:
    found = pipeline_file(file(tmp_path, PIPELINE))
    options = found.layer["paddleocr_vl"]
    assert (options["pipeline_version"], options["use_chart_recognition"]) == ("v1", True)
    assert (options["layout_threshold"], options["layout_merge_bboxes_mode"]) == (V1_THRESHOLDS, MERGE_MODES)
    assert found.layer["recognize"] == {"engine": "openai"}
    assert found.layer["server"] == {"url": "http://localhost:8118/v1", "concurrency": 64}
    assert found.layer["layout"] == {"batch_pages": 8}
    named = " ".join(found.notes)
    for key in ("batch_size", "use_queues", "SubPipelines", "Serving", "model_dir is null", "module_name"):
        assert key in named
    assert set(options) <= set(Config.model_fields["paddleocr_vl"].annotation.model_fields)  # type: ignore[union-attr]


def test_models_and_engines(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    told = changed("SubModules", "LayoutDetection", "model_dir", value=str(model))
    assert pipeline_file(file(tmp_path, told)).layer["layout"]["engine"] == "paddle"
    (model / "model.safetensors").touch()
    assert pipeline_file(file(tmp_path, told)).layer["layout"]["engine"] == "transformers"
    native = pipeline_file(file(tmp_path, changed("SubModules", "VLRecognition", "genai_config", value={"backend": "native"})))
    assert native.layer["recognize"] == {"engine": "vllm"}
    alone = pipeline_file(file(tmp_path, changed("use_layout_detection", value=False)))
    assert alone.layer["layout"]["engine"] == "none"


def test_pages_are_prepared_as_the_sub_pipeline_says(tmp_path: Path) -> None:
    told = changed("use_doc_preprocessor", value=True)
    modules = {
        "DocOrientationClassify": {"module_name": "doc_text_orientation", "model_name": "PP-LCNet_x1_0_doc_ori"},
        "DocUnwarping": {"module_name": "image_unwarping", "model_name": "UVDoc", "model_dir": None},
    }
    found = pipeline_file(file(tmp_path, told | prepared(modules)))
    options = found.layer["paddleocr_vl"]
    assert (options["use_doc_orientation_classify"], options["use_doc_unwarping"]) == (True, True)
    named = " ".join(found.notes)
    assert "DocPreprocessor.batch_size" in named
    assert "--set paddleocr_vl.doc_unwarping_model_dir=DIR" in named
    modules["DocUnwarping"]["model_dir"] = "/models/UVDoc"
    assert (
        pipeline_file(file(tmp_path, told | prepared(modules))).layer["paddleocr_vl"]["doc_unwarping_model_dir"]
        == "/models/UVDoc"
    )
    told["SubPipelines"] = {"DocPreprocessor": {"use_doc_unwarping": False}}
    assert pipeline_file(file(tmp_path, told)).layer["paddleocr_vl"]["use_doc_unwarping"] is False


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (changed("use_chart_recogniton", value=True), "did you mean use_chart_recognition"),
        (changed("SubModules", "LayoutDetection", "img_size", value=640), "SubModules.LayoutDetection.img_size"),
        (changed("SubModules", "Extra", value={}), "SubModules.Extra"),
        (changed("SubModules", "VLRecognition", "genai_config", value={"backend": "magic"}), "magic"),
        (changed("SubModules", "VLRecognition", "genai_config", value={"backend": "vllm-server"}), "server_url"),
        (changed("SubModules", "LayoutDetection", "model_name", value="RT-DETR"), "RT-DETR"),
        (changed("use_doc_preprocessor", value=True) | prepared({"DocUnwarping": {"model_name": "DocTr"}}), "DocTr"),
        (changed("use_doc_preprocessor", value=True) | prepared({"DocUnwrapping": {}}), "did you mean DocUnwarping"),
        (changed("pipeline_name", value="PP-StructureV3"), "PP-StructureV3"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        pipeline_file(file(tmp_path, told))


def test_a_backend_file_with_dashes(tmp_path: Path) -> None:
    told = {
        "gpu-memory-utilization": 0.8,
        "max-model-len": 7520,
        "max-num-batched-tokens": 16384,
        "no-enable-prefix-caching": True,
        "mm-processor-cache-gb": 0,
        "api-server-count": 4,
        "trust_remote_code": True,
    }
    found = backend_file(file(tmp_path, told))
    assert found.layer["recognize"] == {"engine": "vllm"}
    assert found.layer["vllm"] == {
        "gpu_memory_utilization": 0.8,
        "max_model_len": 7520,
        "max_num_batched_tokens": 16384,
        "engine_args": {"enable_prefix_caching": False, "mm_processor_cache_gb": 0},
    }
    named = " ".join(found.notes)
    assert all(key in named for key in ("api-server-count", "trust_remote_code", "mm_processor_cache_gb"))


def test_a_backend_file_that_asks_for_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tensor-parallel-size"):
        backend_file(file(tmp_path, {"tensor-parallel-size": 2}))
    (tmp_path / "list.yaml").write_text("- a\n", "utf-8")
    for path in (tmp_path / "none.yaml", tmp_path / "list.yaml"):
        with pytest.raises(ConfigError, match=path.name):
            backend_file(path)


def test_both_files_through_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "pipeline_config_vllm.yaml").write_text(yaml.safe_dump(PIPELINE), "utf-8")
    (tmp_path / "vlm_server_config.yaml").write_text("gpu-memory-utilization: 0.8\nmax-model-len: 7520\n", "utf-8")
    files = ["--paddlex-config", str(tmp_path / "pipeline_config_vllm.yaml")]
    files += ["--backend-config", str(tmp_path / "vlm_server_config.yaml")]
    done = CliRunner().invoke(app, ["config", "show", *files, "--set", "paddleocr_vl.layout_threshold=0.5"])
    assert done.exit_code == 0, done.output
    told = yaml.safe_load(done.stdout)
    assert told["recognize"]["engine"] == "vllm"  # the backend's file means an engine in this process
    assert (told["vllm"]["gpu_memory_utilization"], told["vllm"]["max_model_len"]) == (0.8, 7520)
    assert (told["paddleocr_vl"]["pipeline_version"], told["paddleocr_vl"]["layout_threshold"]) == ("v1", 0.5)
    assert "use_queues: no effect here" in done.stderr
    (tmp_path / "shown.yaml").write_text(done.stdout, "utf-8")
    again = CliRunner().invoke(app, ["config", "show", "--conf", str(tmp_path / "shown.yaml")])
    assert yaml.safe_load(again.stdout) == told
    version = CliRunner().invoke(app, ["config", "show", *files, "--pipeline-version", "v1.5"])
    assert "pipeline_version: v1.5" in version.stdout
